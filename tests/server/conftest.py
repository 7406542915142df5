"""Real uvicorn servers with the protocol class, in a thread each, and raw sockets to talk to them."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from uvicorn import Config, Server

from gateway.server.limits import WireLimits
from gateway.server.protocol import protocol_class

App = Callable[..., Any]


class Client:
    """One raw connection."""

    def __init__(self, port: int, timeout_s: float = 5.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.buffer = b""

    def send(self, data: bytes) -> "Client":
        self.socket.sendall(data)
        return self

    def fill(self, data: bytes) -> int:
        """Send `data` over and over until the server takes no more for 0.3 s; how many bytes it took."""
        sent = 0
        before = self.socket.gettimeout()
        self.socket.settimeout(0.3)
        try:
            while sent < 64 * 1024 * 1024:
                sent += self.socket.send(data[sent % len(data) :])
            raise AssertionError("the server takes without an end")
        except TimeoutError:
            return sent
        finally:
            self.socket.settimeout(before)

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65_536)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        """What comes up to and with `mark`."""
        while mark not in self.buffer:
            assert self._more(), f"closed before {mark!r}; got {self.buffer!r}"
        at = self.buffer.index(mark) + len(mark)
        found, self.buffer = self.buffer[:at], self.buffer[at:]
        return found

    def response(self, head_only: bool = False) -> "Response":
        """One whole response that has a content-length, is chunked, or has no body."""
        response = Response(self.until(b"\r\n\r\n"))
        if head_only or response.status in (100, 204, 304):
            return response
        if response.headers.get("transfer-encoding") == "chunked":
            while size := int(self.until(b"\r\n"), 16):
                response.chunks.append(self.take(size))
                assert self.take(2) == b"\r\n"
            assert self.take(2) == b"\r\n"
            response.body = b"".join(response.chunks)
        elif "content-length" in response.headers:
            response.body = self.take(int(response.headers["content-length"]))
        else:
            response.body = self.rest()
        return response

    def take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            assert self._more(), f"closed after {len(self.buffer)} of {count} bytes"
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        while self._more():
            pass
        found, self.buffer = self.buffer, b""
        return found

    def closed(self) -> bool:
        """Whether the server closes now, without another byte."""
        return self.rest() == b""

    def close(self) -> None:
        self.socket.close()


class Response:
    """A response's status, headers (lower-case names) and body."""

    def __init__(self, head: bytes) -> None:
        line, *rest = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        self.line = line
        self.status = int(line.split()[1])
        self.pairs = [(name.lower(), value) for name, value in (each.split(": ", 1) for each in rest)]
        self.headers = dict(self.pairs)
        self.chunks: list[bytes] = []
        self.body = b""

    def error(self) -> dict[str, Any]:
        """The error of a JSON answer in OpenAI's form."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


class Served:
    """A running server; `app` may be replaced at any time."""

    def __init__(self, limits: WireLimits, **options: Any) -> None:
        self.app: App = echo
        self.calls: list[dict[str, Any]] = []
        self.limits = limits
        self._clients: list[Client] = []
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = listener.getsockname()[1]
        options = {
            "log_config": None,
            "proxy_headers": False,
            "server_header": False,
            "lifespan": "off",
            "interface": "asgi3",
        } | options
        options = {"http": protocol_class(limits)} | options
        self.server = Server(Config(self._call, **options))
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        self.wait(lambda: self.server.started)

    async def _call(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append(scope)
        await self.app(scope, receive, send)

    def connect(self, timeout_s: float = 15.0) -> Client:
        self._clients.append(Client(self.port, timeout_s))
        return self._clients[-1]

    def hang_up(self) -> None:
        """Close all clients, and wait until the server has noticed."""
        while self._clients:
            self._clients.pop().close()
        self.wait(lambda: not self.server.server_state.connections)

    def ask(self, raw: bytes) -> Response:
        """One request on a connection of its own."""
        return self.connect().send(raw).response()

    @staticmethod
    def wait(condition: Callable[[], Any], timeout_s: float = 15.0) -> None:
        """Return as soon as the condition holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.005)

    def stop(self) -> None:
        self.hang_up()
        self.server.should_exit = True
        self.join()

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the request's body."""
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="session")
def shared() -> Iterator[Served]:
    served = Served(WireLimits())
    yield served
    served.stop()


@pytest.fixture
def served(shared: Served) -> Iterator[Served]:
    """The shared server with the default limits, echoing unless a test sets another app."""
    shared.app = echo
    shared.calls.clear()
    yield shared
    shared.hang_up()


@pytest.fixture(scope="session")
def retired() -> Iterator[list[Served]]:
    """Servers that were told to stop; uvicorn takes some 0.2 s for that, so nobody waits before the end."""
    servers: list[Served] = []
    yield servers
    for each in servers:
        each.join()


def _starter(retired: list[Served]) -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def start(options: dict[str, Any] | None = None, **limits: Any) -> Served:
        running.append(Served(WireLimits(**limits), **(options or {})))
        return running[-1]

    yield start
    for each in running:
        each.hang_up()
        each.server.should_exit = True
    retired.extend(running)


@pytest.fixture
def serve(retired: list[Served]) -> Iterator[Callable[..., Served]]:
    """Starts a server with limits of its own: serve(keep_alive_s=1, ...), stopped at the end."""
    yield from _starter(retired)


@pytest.fixture(scope="module")
def start_server(retired: list[Served]) -> Iterator[Callable[..., Served]]:
    """The same for all tests of a module."""
    yield from _starter(retired)


@pytest.fixture
def server_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.ERROR, logger="uvicorn.error")
    return caplog
