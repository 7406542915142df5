"""Gateways of a test's own in front of the fake provider, and connections by hand."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CONFIG = """
[providers.fake]
kind = "openai"
base_url = "{origin}/v1"
pass_headers = ["x-fake"]
max_concurrent = 2000
[providers.messages]
kind = "anthropic"
base_url = "{origin}"
[models.small]
targets = ["fake/demo-small"]
[models.claude]
targets = ["messages/demo-small"]
[clients.acme]
tier = "basic"
quota = {{ requests = ["10000000/minute"], concurrent = 2000 }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
[clients.gold]
tier = "enterprise"
quota = {{ requests = ["10000000/minute"], concurrent = 2000 }}
[[clients.gold.keys]]
secret = "tg-gold-secret-key"
{more}
"""


class Line:
    """One connection to the gateway."""

    def __init__(self, port: int, buffer: int = 0) -> None:
        self.socket = socket.socket()
        if buffer:  # of the kernel, for what we have not read
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        self.got = b""

    def get(self, path: str = "/livez") -> None:
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())

    def post(
        self, fake: str = "", *, path: str = "/v1/chat/completions", key: str = "acme", head: str = "", **body: Any
    ) -> None:
        data = json.dumps({"model": "small", "messages": [{"role": "user", "content": "hi"}], **body}).encode()
        self.socket.sendall(
            f"POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tg-{key}-secret-key\r\nx-fake: {fake}\r\n"
            f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode()
            + data
        )

    def until(self, what: bytes) -> bytes:
        """Reads until the answer holds this."""
        while what not in self.got:
            data = self.socket.recv(65536)
            assert data, f"closed before {what!r}: {self.got[-300:]!r}"
            self.got += data
        return self.got

    def rest(self) -> bytes:
        """Reads until the connection is closed."""
        try:
            while data := self.socket.recv(65536):
                self.got += data
        except ConnectionResetError:
            pass
        return self.got

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def line() -> Iterator[Callable[..., Line]]:
    """Opens connections to a gateway."""
    lines: list[Line] = []

    def open(server: Any, buffer: int = 0) -> Line:
        lines.append(Line(server.port, buffer))
        return lines[-1]

    yield open
    for one in lines:
        one.close()


@pytest.fixture
def begin(start: Callable[..., Any], demo_process: Any) -> Callable[..., Any]:
    """Starts a gateway; `more` is added to its configuration."""
    return lambda more="", **flags: start(CONFIG.format(origin=demo_process.origin, more=more), **flags)


@pytest.fixture
def wait() -> Callable[..., None]:
    """Waits until something is so."""

    def wait(happened: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.02)

    return wait


@pytest.fixture
def config() -> str:
    """The text of a configuration, to be formatted with origin and more."""
    return CONFIG
