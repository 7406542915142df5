"""SDK clients and example requests for every route of the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI

from gateway.routes import TABLE, Route

KEY = "tg-test-shared-key"
OTHER_KEY = "tg-test-other-key"

#: Bodies by route; routes that need none are not here.
BODIES: dict[str, Any] = {
    "chat": {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]},
    "responses": {"model": "demo-small", "input": "hi"},
    "completions": {"model": "demo-small", "prompt": "hi"},
    "embeddings": {"model": "demo-small", "input": "hi"},
    "moderations": {"model": "demo-small", "input": "hi"},
    "images": {"model": "demo-small", "prompt": "a tide", "n": 1, "size": "1024x1024"},
    "audio": {"model": "demo-small", "input": "hi", "voice": "alloy"},
    "messages": {"model": "demo-small", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]},
    "count_tokens": {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]},
    "batches": {"input_file_id": "object-0000000000", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    "message_batches": {"requests": []},
    "other": {"hello": "world"},
    "files": {"purpose": "batch"},
    "worker": {"action": "process"},
    "chat_objects": {"metadata": {}},
    "response_objects": {},
}
REST = {"images": "generations", "audio": "speech", "files": "content", "models": "demo-small"}
DATA_ROUTES = [route for route in TABLE if route.plane == "data"]


class Example:
    """A request that fits one route and one of its methods."""

    def __init__(self, route: Route, method: str, number: int) -> None:
        self.route = route
        self.method = method
        self.object_id = f"object-{number:010d}"
        path = route.template.replace("{id}", "echo" if route.name == "worker" else self.object_id)
        self.path = path.replace("{path}", REST.get(route.name, "cancel"))
        self.body = BODIES.get(route.name) if method in ("POST", "PUT", "PATCH") else None
        self.headers = {"anthropic_version": "2023-06-01"} if route.dialect == "anthropic" else {}

    def __str__(self) -> str:
        return f"{self.method} {self.route.template}"


EXAMPLES = [
    Example(route, method, number)
    for number, (route, method) in enumerate(
        (route, method) for route in DATA_ROUTES for method in sorted(route.methods)
    )
]


@pytest.fixture
def openai(gateway: Any) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.address}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic(gateway: Any) -> Iterator[Anthropic]:
    with Anthropic(base_url=gateway.address, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return EXAMPLES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `example` runs on every route and method."""
    if "example" in metafunc.fixturenames:
        metafunc.parametrize("example", EXAMPLES, ids=str)


@dataclass
class Asked:
    """A request that reached the scripted upstream."""

    method: str
    path: str  # with its query
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Scripted:
    """An upstream that answers what `script` says: a JSON value, or (status, content type, bytes)."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.script: Callable[[Asked], Any] = lambda asked: {"object": "echo"}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = b""
                while self.headers.get("transfer-encoding") and (size := int(self.rfile.readline() or b"0", 16)):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                if self.headers.get("transfer-encoding"):
                    self.rfile.readline()  # the end of the body, or the next request would seem to begin with it
                body = body or self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                scripted.asked.append(asked)
                said = scripted.script(asked)
                said = said if isinstance(said, tuple) else (200, "application/json", json.dumps(said).encode())
                status, kind, out = said
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("transfer-encoding", "chunked")  # as the great providers do
                self.end_headers()
                self.wfile.write((b"%x\r\n%b\r\n" % (len(out), out) if out else b"") + b"0\r\n\r\n")

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


@pytest.fixture(scope="module")
def scripted() -> Iterator[Scripted]:
    upstream = Scripted()
    yield upstream
    upstream.stop()


@pytest.fixture
def form() -> Callable[..., bytes]:
    return form_of


def form_of(*parts: tuple[str, bytes | str] | tuple[str, bytes, str]) -> bytes:
    """A multipart body with the boundary "B": (name, value), or (name, bytes, filename)."""
    out = b""
    for name, value, *filename in parts:
        shown = f'; filename="{filename[0]}"' if filename else ""
        data = value if isinstance(value, bytes) else value.encode()
        out += f'--B\r\ncontent-disposition: form-data; name="{name}"{shown}\r\n\r\n'.encode() + data + b"\r\n"
    return out + b"--B--\r\n"
