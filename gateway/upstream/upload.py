"""Upload: sends a request body that arrives piece by piece, no faster than the upstream takes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from gateway.upstream.base import ProtocolError
from gateway.upstream.connection import Connection
from gateway.upstream.reply import Reply


async def upload(
    connection: Connection,
    reply: Reply,
    body: AsyncIterator[bytes],
    content_length: int | None,
    deadline: Callable[[], float],
) -> None:
    """Run in a task that ends with the exchange. `deadline()` is asked when the last byte is out.

    What the iterator raises, or a length that is not the declared one, fails the exchange.
    """
    try:
        if content_length is None:
            await _send_chunked(connection, reply, body)
        else:
            await _send_counted(connection, reply, body, content_length, deadline)
        if connection.reply is reply and connection.sending:
            connection.end_upload(deadline())
    except Exception as error:  # whatever the caller's iterator raises is the caller's to see
        if connection.reply is reply:
            connection.fail_with(error)
        elif not reply.error:
            reply.error = error
    finally:
        aclose = getattr(body, "aclose", None)
        if aclose is not None:
            await aclose()


async def _send_chunked(connection: Connection, reply: Reply, body: AsyncIterator[bytes]) -> None:
    async for piece in body:
        if connection.reply is not reply:
            return
        if piece:
            connection.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await connection.drain()
    if connection.reply is reply:
        connection.transport.write(b"0\r\n\r\n")


async def _send_counted(
    connection: Connection, reply: Reply, body: AsyncIterator[bytes], left: int, deadline: Callable[[], float]
) -> None:
    async for piece in body:
        if connection.reply is not reply:
            return
        left -= len(piece)
        if left < 0:
            raise ProtocolError("the request body is longer than its declared length", phase="send", sent=True)
        if piece:
            connection.transport.write(piece)
        if left == 0:
            # All is sent, whenever the iterator may notice; a reply that comes now finds the request complete.
            connection.end_upload(deadline())
        else:
            await connection.drain()
    if left > 0:
        raise ProtocolError("the request body is shorter than its declared length", phase="send", sent=True)
