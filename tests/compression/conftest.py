"""A gateway in front of an upstream that says what a test wants: a worker at /workers/w, a provider of chat."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import httpx2
import pytest

CONFIG = """
[providers.ai]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
[providers.packed]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
accepts = ["gzip"]
[models.small]
targets = ["ai/m"]
[models.squeezed]
targets = ["packed/m"]
[workers.w]
base_url = "{origin}/w"
accepts = ["zstd", "gzip"]
[workers.plain]
base_url = "{origin}/w"
[clients.acme]
quota = {{ requests = ["100000/minute"] }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
{more}
"""


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Says:
    """What the upstream answers: a list is sent in chunks, each after `go` was set."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    body: bytes | list[bytes] = b"{}"
    cut: bool = False  # the connection ends before the body does


class Upstream:
    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.says = Says()
        self.go = Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def _handler(upstream: Upstream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = b""
            while self.headers.get("transfer-encoding") and (size := int(self.rfile.readline() or b"0", 16)):
                body += self.rfile.read(size)
                self.rfile.readline()
            body = body or self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            upstream.asked.append(Asked(self.command, self.path, headers, body))
            says = upstream.says
            self.send_response(says.status)
            for name, value in says.headers.items():
                self.send_header(name, value)
            if isinstance(says.body, list):
                self.pieces(says)
                return
            if says.status not in (204, 304) and "content-length" not in says.headers:
                self.send_header("content-length", str(len(says.body)))
            self.end_headers()
            if self.command != "HEAD" and says.status not in (204, 304):
                self.wfile.write(says.body)

        def pieces(self, says: Says) -> None:
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in says.body:
                assert isinstance(piece, bytes)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                upstream.go.wait(10)
                upstream.go.clear()
            if says.cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self.answer
            raise AttributeError(name)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@dataclass
class Site:
    upstream: Upstream
    address: str
    http: httpx2.Client

    @property
    def says(self) -> type[Says]:
        return Says

    def say(self, body: bytes | list[bytes] = b"{}", status: int = 200, cut: bool = False, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.upstream.says = Says(status, {"content-type": "application/json", **named}, body, cut)

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[httpx2.Response, bytes]:
        """The answer, and its body as it came over the wire."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"authorization": "Bearer tg-acme-secret-key", "accept-encoding": "identity", **named}
        if body is not None:
            sent.setdefault("content-type", "application/json")
        with self.http.stream(method, self.address + path, content=body, headers=sent) as answer:
            return answer, b"".join(answer.iter_raw())

    @property
    def last(self) -> Asked:
        return self.upstream.asked[-1]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def start_site(upstream: Upstream, start_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    opened: list[httpx2.Client] = []

    def start(more: str = "") -> Site:
        server = start_module(tmp_path_factory.mktemp("compression"), CONFIG.format(origin=upstream.origin, more=more))
        opened.append(httpx2.Client(timeout=20, trust_env=False))
        return Site(upstream, server.address, opened[-1])

    yield start
    for client in opened:
        client.close()


@pytest.fixture(scope="module")
def site(start_site: Callable[..., Site]) -> Site:
    return start_site()


@pytest.fixture(scope="module")
def flowing(start_site: Callable[..., Site]) -> Site:
    """Where streams are encoded too."""
    return start_site("[compression]\nstreams = true\n")


@pytest.fixture
def text() -> Callable[[int], bytes]:
    """JSON of about that many bytes, which becomes a lot shorter."""

    def make(size: int) -> bytes:
        return json.dumps({"lines": [f"line {i} of the tide table" for i in range(size // 32)]}).encode()

    return make
