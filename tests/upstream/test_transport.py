"""The native client as a transport of httpx2, as SDKs would use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from gateway.upstream.base import Timeouts
from gateway.upstream.transport import NativeTransport

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"


async def test_get_post_and_stream_through_httpx2(server: Any, native: Any) -> None:
    native.serve(OK)
    async with httpx2.AsyncClient(transport=NativeTransport(), base_url=server.url) as client:
        response = await client.get("/a%2Fb", params={"q": "1 2"})
        assert (response.status_code, response.text, response.headers["content-type"]) == (200, "hello", "text/plain")
        assert server.requests[-1].startswith(b"GET /a%2Fb?q=1+2 HTTP/1.1\r\n") or b"q=1%202" in server.requests[-1]
        await client.post("/p", content=b"body")
        assert server.requests[-1].endswith(b"\r\n\r\nbody")

        async def source() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        await client.post("/p", content=source())
        assert server.requests[-1].endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        await client.post("/p", content=source(), headers={"content-length": "6"})
        assert server.requests[-1].endswith(b"\r\n\r\nonetwo")
        async with client.stream("GET", "/s") as streamed:
            assert b"".join([piece async for piece in streamed.aiter_raw()]) == b"hello"
        assert (await client.head("/h")).content == b""
    assert all(request.lower().count(b"\r\nhost:") == 1 for request in server.requests)


async def test_decoding_and_redirects_are_httpx2s_own(server: Any, native: Any) -> None:
    import gzip

    packed = gzip.compress(b"hello")
    native.serve(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed)
    async with httpx2.AsyncClient(transport=NativeTransport()) as client:
        assert (await client.get(server.url)).text == "hello"


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",), httpx2.ReadError),
        ((b"nonsense\r\n\r\n",), httpx2.RemoteProtocolError),
        ((), httpx2.ReadTimeout),
    ],
)
async def test_errors_are_httpx2s(server: Any, native: Any, pieces: tuple[bytes, ...], wanted: type[Exception]) -> None:
    ends = wanted is httpx2.ReadTimeout
    native.serve(*pieces, then=(lambda peer: peer.gone()) if ends else native.close)
    async with httpx2.AsyncClient(transport=NativeTransport(Timeouts(first_byte_s=0.05))) as client:
        with pytest.raises(wanted):
            await client.get(server.url)


async def test_refused_connection_is_httpx2s_connect_error(closed_port: int) -> None:
    async with httpx2.AsyncClient(transport=NativeTransport()) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get(f"http://127.0.0.1:{closed_port}")


async def test_cancelled_stream_releases_its_connection(server: Any, native: Any) -> None:
    native.serve(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab", then=lambda peer: peer.gone())
    async with httpx2.AsyncClient(transport=NativeTransport(max_connections=1)) as client:
        task = asyncio.create_task(client.get(server.url))
        await native.turns(30)
        task.cancel()
        await asyncio.wait({task})
        native.serve(OK)
        assert (await client.get(server.url)).text == "hello"


async def test_official_openai_sdk_over_the_native_transport(server: Any, native: Any) -> None:
    import openai

    choice = b'{"index":0,"delta":{"content":"hi"}}'
    events = b'data: {"id":"1","object":"chat.completion.chunk","model":"m","choices":[' + choice + b"]}\n\n"
    wire = b"%x\r\n%b\r\n" % (len(events), events)
    native.serve(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        wire,
        wire,
        b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
    )
    http_client = httpx2.AsyncClient(transport=NativeTransport())
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1", http_client=http_client) as sdk:
        stream = await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
        assert [event.choices[0].delta.content async for event in stream] == ["hi", "hi"]
    assert server.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
