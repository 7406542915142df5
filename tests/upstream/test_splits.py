"""Whatever bytes come, however they are cut: the same outcome, and only ever a reply or an UpstreamError."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from gateway.upstream.base import UpstreamError
from gateway.upstream.connection import Connection
from gateway.upstream.reply import Reply

SEEDS = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: b\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x-a\r\nx-a: b\r\n\r\n"
    b"3\r\nhel\r\n2;e=1\r\nlo\r\n0\r\nt: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
]
INSERTS = [b"\r", b"\n", b"\0", b" ", b"\t", b":", b"0", b"9", b"-", b"\xff", b"\r\n", b"1\r\nx\r\n"]
INSERTS += [b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n"]


class Wire(asyncio.Transport):
    """A transport and an owner in one, that only notes whether the connection may be used again."""

    def __init__(self) -> None:
        super().__init__()
        self.reusable = self.closed = False

    def write(self, data: Any) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def release(self, connection: Connection) -> None:
        self.reusable = True

    def discard(self, connection: Connection) -> None:
        self.reusable, self.closed = False, True

    def gone(self, connection: Connection) -> None: ...


def play(pieces: list[bytes], head_only: bool) -> tuple[Any, ...]:
    wire = Wire()
    loop: Any = None
    connection = Connection(wire, loop, lambda: 1.0, 4096)
    connection.connection_made(wire)
    reply = Reply(connection, 9.0, head_only)
    connection.start(reply, b"GET / HTTP/1.1\r\n\r\n", None, 9.0)
    for piece in pieces:
        if not wire.closed:
            connection.data_received(piece)
    reusable = wire.reusable
    connection.eof_received()
    connection.connection_lost(None)
    assert reply.connection is None
    assert reply.error is None or isinstance(reply.error, UpstreamError)
    assert reply.started or reply.error is not None
    head = (reply.status, reply.headers, reply.content_length) if reply.started else None
    return head, reply.rest, type(reply.error), reusable


def mutated(chance: random.Random) -> bytes:
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[at:at] = chance.choice(INSERTS)
            case 1:
                del data[at : at + chance.randrange(1, 4)]
            case 2 if at < len(data):
                data[at] = chance.randrange(256)
            case _:
                data += data[at : at + 20]
    return bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_outcome_does_not_depend_on_how_the_bytes_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        data = mutated(chance)
        head_only = chance.random() < 0.2
        whole = play([data], head_only)
        single = play([data[at : at + 1] for at in range(len(data))], head_only)
        # Line ends behind a reply are skipped if they come with it, and close the connection if they come later.
        compared = 4 if not data.endswith(b"\n") else 3
        assert single[:compared] == whole[:compared], data
        at = chance.randrange(len(data) + 1)
        assert play([data[:at], data[at:]] if 0 < at < len(data) else [data], head_only)[:3] == whole[:3], data
