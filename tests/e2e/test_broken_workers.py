"""Upstreams that break HTTP's rules, seen by a client of the whole gateway."""

from __future__ import annotations

import json
import re
import socketserver
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import IncompleteRead
from threading import Thread
from typing import Any

import pytest

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
#: What is sent, in pieces with a pause between them.
ANSWERS: dict[str, tuple[bytes, ...]] = {
    "status-600": (b"HTTP/1.1 600 Odd\r\ncontent-length: 2\r\n\r\nhi",),
    "status-999": (b"HTTP/1.1 999 Odd\r\ncontent-length: 2\r\n\r\nhi",),
    "cut-chunked": (CHUNKED, b""),
    "bad-chunk": (CHUNKED, b"-1\r\nhi\r\n"),
    "cut-length": (OK + b"content-length: 2000000\r\n\r\n", b""),
    "cut-later": (CHUNKED + b"2\r\nhi\r\n", b""),
    "cut-long": (OK + b"content-length: 2000000\r\n\r\nhi", b""),
    "good": (OK + b"content-length: 2\r\n\r\nhi",),
}

#: What breaks when some of it was passed on.
LATE = ("cut-later", "cut-long")


class Raw(socketserver.StreamRequestHandler):
    """Answers one request by the last part of its path, and closes."""

    def handle(self) -> None:
        line = self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        with suppress(ConnectionError):
            for number, piece in enumerate(ANSWERS[line.split(b" ")[1].rpartition(b"/")[2].decode()]):
                time.sleep(0.1 * bool(number))
                self.wfile.write(piece)


CONFIG = """
[workers.native]
base_url = "http://127.0.0.1:{port}"
[workers.httpx]
base_url = "http://127.0.0.1:{port}"
client = "httpx"
"""


@pytest.fixture(scope="module")
def server(start_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Raw) as upstream:
        thread = Thread(target=upstream.serve_forever, args=(0.05,))
        thread.start()
        config = CONFIG.format(port=upstream.server_address[1])
        yield start_module(tmp_path_factory.mktemp("broken"), config)
        upstream.shutdown()
        thread.join()


@pytest.mark.parametrize("worker", ["native", "httpx"])
@pytest.mark.parametrize("answer", [name for name in ANSWERS if name not in ("good", *LATE)])
def test_what_breaks_before_its_first_byte_is_a_502_that_says_whose_fault_it_is(
    server: Any, worker: str, answer: str
) -> None:
    status, _, body = server.request("POST", f"/workers/{worker}/{answer}", b"{}")
    assert status == 502, body
    assert f"'{worker}'" in json.loads(body)["error"]
    assert server.request("POST", f"/workers/{worker}/good", b"{}")[0] == 200
    assert not re.search(r'"level": "error"', server.output), "it is no defect of ours"


@pytest.mark.parametrize("worker", ["native", "httpx"])
@pytest.mark.parametrize("answer", LATE)
def test_what_breaks_later_ends_visibly_short_and_is_no_error_of_ours(server: Any, worker: str, answer: str) -> None:
    with pytest.raises((IncompleteRead, ConnectionError)):
        server.request("POST", f"/workers/{worker}/{answer}", b"{}")
    assert server.request("POST", f"/workers/{worker}/good", b"{}")[0] == 200
    assert not re.search(r'"level": "error"', server.output), "it is no defect of ours"
