"""Who is turned away before anything is read: everybody once we are closing, some under overload (../docs/overload.md).

An answer here costs a fraction of a served call, or it would be no help: no task, no JSON, no ledger row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING

from gateway.clock import Clock
from gateway.errors import Dialect, Header, Overloaded, render
from gateway.ids import Ids
from gateway.overload import Overload

if TYPE_CHECKING:
    from gateway.server.exchange import Exchange

_ID = "00000000-0000-0000-0000-000000000000"
_OVERLOAD = Overloaded("The gateway has more calls than it can serve now. Retry after a moment.")
_CLOSING = Overloaded(
    "This gateway is shutting down. Retry: another one, or its successor, will answer.", code="draining"
)


class Door:
    """Pages are always answered: those of health, metrics and control."""

    def __init__(self, overload: Overload, is_page: Callable[[bytes], bool], ids: Ids, clock: Clock) -> None:
        self.draining = False  # no longer ready, though calls are served
        self.closed = False  # no further call is served
        self.overload = overload
        self._is_page = is_page
        self._ids = ids
        self._wall_ns = clock.wall_ns
        self._random = Random().random
        self._bodies: dict[tuple[bool, Dialect], tuple[bytes, ...]] = {}

    @property
    def is_guarded(self) -> bool:
        """Whether anybody may be turned away."""
        return self.closed or self.overload.pressure > 0

    def turn_away(self, exchange: Exchange) -> bool:
        """For our own protocol: True if the exchange has its answer."""
        if not self.closed and self.overload.pressure <= 0:
            return False
        head = exchange.head
        answer = self.answer(head.path, head.fields)
        if answer is None:
            return False
        exchange.begin(503, answer[0])
        exchange.send_body(b"" if head.method == "HEAD" else answer[1], more=False)
        return True

    def answer(self, path: bytes, fields: Mapping[bytes, bytes]) -> tuple[list[Header], bytes] | None:
        """Headers and body of the 503, or None: the call may come in."""
        if self._is_page(path):
            return None
        if not self.closed and not self.overload.turns_away(fields):
            return None
        dialect: Dialect = "openai"
        if path.startswith(b"/workers"):
            dialect = "plain"
        elif path.startswith(b"/v1/messages") or b"anthropic-version" in fields:
            dialect = "anthropic"
        parts = self._bodies.get((self.closed, dialect))
        if parts is None:
            body = render(_CLOSING if self.closed else _OVERLOAD, dialect, _ID)[2]
            parts = self._bodies[self.closed, dialect] = tuple(body.split(_ID.encode()))
        id = self._ids.new(self._wall_ns()).encode()
        wait_ms = self._wait_ms()
        headers = [
            (b"content-type", b"application/json"),
            (b"retry-after", b"%d" % math.ceil(wait_ms / 1000)),
            (b"retry-after-ms", b"%d" % wait_ms),
            (b"x-request-id", id),
        ]
        if dialect == "anthropic":
            headers.append((b"request-id", id))
        if self.closed:
            headers.append((b"connection", b"close"))
        body = id.join(parts)
        headers.append((b"content-length", b"%d" % len(body)))
        return headers, body

    def _wait_ms(self) -> int:
        """Spread out, so that those turned away together don't come back together; longer under more pressure."""
        most = 1000 if self.closed else 1000 + 8000 * self.overload.pressure
        return round(500 + self._random() * most)
