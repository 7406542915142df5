"""A graceful end through uvicorn: what has begun, were it half a head, is served; what idles is closed."""

import asyncio
from typing import Any

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def holding(release: asyncio.Event) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/hold":
            await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    return app


def test_idle_connections_close_and_running_requests_finish(serve: Any) -> None:
    served = serve()
    release = asyncio.Event()
    served.app = holding(release)
    idle, half, running, posting = (served.connect() for _ in range(4))
    assert idle.send(GET).response().status == 200
    half.send(GET[:10])
    running.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
    posting.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo")
    served.wait(lambda: len(served.calls) == 2)
    loop = next(iter(served.server.server_state.connections)).loop
    served.server.should_exit = True
    assert idle.closed()
    response = half.send(GET[10:]).response()
    assert (response.status, response.headers["connection"]) == (200, "close")
    response = posting.send(b"dy").response()
    assert (response.status, response.headers["connection"]) == (200, "close")
    loop.call_soon_threadsafe(release.set)
    response = running.response()
    assert (response.body, response.headers["connection"]) == (b"done", "close")
    assert running.closed()
    served.join()
    assert not served.server.server_state.tasks


def test_what_outlives_the_grace_is_cut(serve: Any, server_log: Any) -> None:
    served = serve({"timeout_graceful_shutdown": 1})
    served.app = holding(asyncio.Event())
    client = served.connect().send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
    served.wait(lambda: served.calls)
    served.server.should_exit = True
    served.join()
    assert client.rest() == b""
    assert not served.server.server_state.tasks
