"""NativeTransport: the native client as a transport of httpx2, for SDKs and tools that bring their own client.

httpx2.AsyncClient(transport=NativeTransport(Timeouts(first_byte_s=30)))
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2

from gateway.upstream import base
from gateway.upstream.native import NativeClient

# Most specific first; what is left is a TransportError.
_ERRORS: tuple[tuple[type[base.UpstreamError], type[httpx2.TransportError]], ...] = (
    (base.ConnectFailed, httpx2.ConnectError),
    (base.ConnectTimeout, httpx2.ConnectTimeout),
    (base.PoolTimeout, httpx2.PoolTimeout),
    (base.FirstByteTimeout, httpx2.ReadTimeout),
    (base.IdleTimeout, httpx2.ReadTimeout),
    (base.TotalTimeout, httpx2.ReadTimeout),
    (base.ConnectionLost, httpx2.ReadError),
    (base.ProtocolError, httpx2.RemoteProtocolError),
)


class NativeTransport(httpx2.AsyncBaseTransport):
    """One NativeClient for each origin it meets, kept until `aclose`: meant for few origins.

    Deadlines are those given here; httpx2's own `timeout` is not consulted. `options` go to every NativeClient.
    """

    def __init__(self, timeouts: base.Timeouts | None = None, **options: Any) -> None:
        self._timeouts = timeouts
        self._options = options
        self._clients: dict[tuple[bytes, bytes], NativeClient] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            reply = await self._client(request.url).send(await _translate(request))
        except base.UpstreamError as error:
            raise _httpx2_error(error) from error
        return httpx2.Response(
            reply.status, headers=reply.headers, stream=_ReplyStream(reply), extensions={"http_version": b"HTTP/1.1"}
        )

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def _client(self, url: httpx2.URL) -> NativeClient:
        key = (url.raw_scheme, url.netloc)
        client = self._clients.get(key)
        if client is None:
            base_url = f"{url.scheme}://{url.netloc.decode('ascii')}"
            client = self._clients[key] = NativeClient(base_url, self._timeouts, **self._options)
        return client


class _ReplyStream(httpx2.AsyncByteStream):
    def __init__(self, reply: base.UpstreamResponse) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while piece := await self._reply.read():
                yield piece
        except base.UpstreamError as error:
            raise _httpx2_error(error) from error

    async def aclose(self) -> None:
        await self._reply.aclose()


async def _translate(request: httpx2.Request) -> base.UpstreamRequest:
    stream = request.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    body: bytes | AsyncIterator[bytes] | None
    length = request.headers.get("content-length")
    if isinstance(stream, httpx2.ByteStream):
        body = b"".join([piece async for piece in stream])
        if not body and length is None:
            body = None
    else:
        body = aiter(stream)
    return base.UpstreamRequest(
        method=request.method,
        target=request.url.raw_path,
        headers=[(name.lower(), value) for name, value in request.headers.raw],
        body=body,
        content_length=int(length) if length is not None else None,
    )


def _httpx2_error(error: base.UpstreamError) -> httpx2.TransportError:
    for ours, theirs in _ERRORS:
        if isinstance(error, ours):
            return theirs(str(error))
    return httpx2.TransportError(str(error))
