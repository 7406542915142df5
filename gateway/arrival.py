"""A request as a server hands it over: by ASGI, or by our own protocol without messages in between."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.bodies import Receive
from gateway.errors import Header

if TYPE_CHECKING:
    from gateway.server.exchange import Exchange

Scope = MutableMapping[str, Any]


class Arrival:
    """Its head, and how its body and its client's leaving are learnt.

    `fields` gives header values by lower-case name, the last of duplicates. `memo` keeps what follows from the head
    alone; under our own protocol the next request with the same head on the same connection finds it there.
    """

    __slots__ = (
        "exchange",
        "fields",
        "headers",
        "is_direct",
        "memo",
        "method",
        "peer",
        "query",
        "raw_path",
        "receive",
        "task",
    )

    method: str
    raw_path: bytes
    is_direct: bool  # no middleware stands between, and the path is canonical
    query: bytes
    headers: Sequence[Header]
    fields: Mapping[bytes, bytes]
    peer: str
    memo: dict[Any, Any]
    receive: Receive
    exchange: Exchange | None  # of our own protocol
    task: asyncio.Task[Any] | None  # that serves the request

    @classmethod
    def by_asgi(cls, scope: Scope, receive: Receive) -> Arrival:
        """From what any ASGI server says."""
        self = cls()
        client, extensions = scope.get("client"), scope.get("extensions")
        self.method = scope["method"]
        self.raw_path = scope.get("raw_path") or scope["path"].encode()
        self.is_direct = False
        self.query = scope["query_string"]
        self.headers = scope["headers"]
        self.fields = dict(self.headers)
        self.peer = client[0] if client else ""
        self.memo = {}
        self.receive = receive
        self.exchange = extensions.get("tidegate") if extensions else None
        self.task = asyncio.current_task()
        return self

    @classmethod
    def direct(cls, exchange: Exchange) -> Arrival:
        """From our own protocol."""
        self = cls()
        head = exchange.head
        self.method = head.method
        self.raw_path = head.path
        self.is_direct = True
        self.query = head.query
        self.headers = head.headers
        self.fields = head.fields
        self.peer = exchange.peer
        self.memo = head.memo
        self.receive = exchange.receive
        self.exchange = exchange
        self.task = exchange.task
        return self
