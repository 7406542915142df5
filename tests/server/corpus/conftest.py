"""The raw corpus: its cases, an upstream that records what reaches it, and the servers that are compared."""

import asyncio
import os
import socket
import socketserver
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import h11
import pytest

from gateway.server.headers import Origin, RequestRules, request_headers

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SILENCE_S = 1.5  # after which a server that has answered is taken to wait for more


class Seen(NamedTuple):
    """One request as somebody read it; the target is decoded and without the case's own path."""

    method: bytes
    target: bytes
    body: bytes


@dataclass
class Case:
    """One input, and what has to come of it."""

    name: str
    mark: bytes  # a path segment that no other case has
    raw: str
    serves: list[list[str]] = field(default_factory=list)

    def bytes_for(self, prefix: bytes = b"", credential: bytes = b"") -> bytes:
        """The bytes to send to a server that has the upstream under `prefix` and wants `credential` (header lines)."""
        path = prefix + b"/" + self.mark
        raw = self.raw.encode("latin-1").replace(b"{p}", path)
        smuggled = self.smuggled(path)
        for name, value in ((b"{n}", b"%d" % len(smuggled)), (b"{x}", b"%x" % len(smuggled)), (b"{s}", smuggled)):
            raw = raw.replace(name, value)
        if b"\r\nHost: x\r\n" not in raw and self.serves:
            return raw.replace(b"\r\n", b"\r\n" + credential, 1)
        return raw.replace(b"\r\nHost: x\r\n", b"\r\nHost: x\r\n" + credential)

    @staticmethod
    def smuggled(path: bytes) -> bytes:
        """A whole request, as a body."""
        return b"GET %b/smuggled HTTP/1.1\r\nHost: y\r\n\r\n" % path

    def expected(self) -> list[Seen]:
        smuggled = self.smuggled(b"/" + self.mark)
        rows = ([part.encode() for part in row] for row in self.serves)
        return [Seen(method, target, body.replace(b"{s}", smuggled)) for method, target, body in rows]


def load_cases() -> list[Case]:
    found = []
    for path in sorted(HERE.glob("*.toml")):
        for row in tomllib.loads(path.read_text())["case"]:
            row["name"] = f"{path.stem}: {row['name']}"
            found.append(Case(mark=b"case%03d" % len(found), **row))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `case` runs for each case."""
    if "case" in metafunc.fixturenames:
        cases = load_cases()
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])


def normal(method: bytes, target: bytes, body: bytes, mark: bytes) -> Seen:
    """A request without the ways to write its target, so that readers can be compared."""
    scheme, separator, rest = target.partition(b"://")
    if separator and b"/" not in scheme:
        target = rest[rest.find(b"/") :]
    path, question, query = target.partition(b"?")
    path = unquote_to_bytes(path)
    at = path.find(b"/" + mark)
    return Seen(method, (path[at + len(mark) + 1 :] if at >= 0 else path) + question + query, body)


class Upstream(socketserver.ThreadingTCPServer):
    """Reads requests strictly, answers each, and keeps all that comes, also what is no request."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), UpstreamConnection)
        self.requests: list[tuple[bytes, bytes, bytes]] = []
        self.strays: list[bytes] = []
        self.port = self.server_address[1]

    def of(self, case: Case, prefix: bytes = b"") -> list[Seen]:
        """What came of a case; `prefix` stands before its path in bodies, too."""
        return [
            normal(method, target, body.replace(prefix + b"/" + case.mark, b"/" + case.mark), case.mark)
            for method, target, body in self.requests
            if case.mark in target
        ]


class UpstreamConnection(socketserver.StreamRequestHandler):
    server: Upstream

    def handle(self) -> None:
        with suppress(ConnectionResetError):
            self.read_requests()

    def read_requests(self) -> None:
        while line := self.rfile.readline():
            parts = line.split(b" ")
            head = []
            while (header := self.rfile.readline()) not in (b"\r\n", b""):
                head.append(header.lower().split(b":", 1))
            lengths = [int(value) for name, value in head if name == b"content-length"]
            closing = (b"connection", b"close") in {(name, value.strip()) for name, value in head}
            codings = [value for name, value in head if name == b"transfer-encoding"]
            odd = codings not in ([], [b" chunked\r\n"]) or len(lengths) + len(codings) > 1
            if len(parts) != 3 or parts[2] not in (b"HTTP/1.1\r\n", b"HTTP/1.0\r\n") or odd:
                self.server.strays.append(line + repr(head).encode())
                return
            body = self.rfile.read(lengths[0]) if lengths else self.chunks() if codings else b""
            self.server.requests.append((parts[0], parts[1], body))
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * (parts[0] != b"HEAD")))
            self.wfile.write(b"ok" * (parts[0] != b"HEAD"))
            if closing:
                return

    def chunks(self) -> bytes:
        """A body in chunks, written as plainly as can be."""
        body = b""
        while (line := self.rfile.readline()) != b"0\r\n":
            piece = self.rfile.read(int(line, 16))
            if line != b"%x\r\n" % len(piece) or self.rfile.readline() != b"\r\n":
                self.server.strays.append(line)
            body += piece
        if self.rfile.readline() != b"\r\n":
            self.server.strays.append(b"trailers")
        return body


@pytest.fixture(scope="module")
def upstreams() -> Iterator[list[Upstream]]:
    """One for each server that is compared."""
    running = [Upstream(), Upstream(), Upstream()]
    threads = [threading.Thread(target=each.serve_forever, args=(0.05,)) for each in running]
    for thread in threads:
        thread.start()
    yield running
    for each, thread in zip(running, threads, strict=True):
        each.shutdown()
        each.server_close()
        thread.join()


@dataclass
class Address:
    """A server to send the corpus to: where, under which path it has the upstream, and header lines it wants."""

    port: int
    upstream: Upstream
    prefix: bytes = b""
    credential: bytes = b""


@pytest.fixture(scope="module", params=["protocol", "gateway"])
def candidate(request: pytest.FixtureRequest) -> Address:
    """The server under test: the protocol class before a small proxy, and the gateway as it is."""
    found: Address = request.getfixturevalue({"protocol": "protocol_alone", "gateway": "whole"}[request.param])
    return found


GATEWAY = """
[workers.x]
base_url = "http://127.0.0.1:{port}"
[clients.tester]
quota = {{ requests = ["1000000/minute"], concurrent = 1000 }}
[[clients.tester.keys]]
secret = "tg-test-corpus-key"
"""


@pytest.fixture(scope="module")
def whole(upstreams: list[Upstream], start_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Address:
    """The gateway itself, with the upstream as a worker."""
    server = start_module(tmp_path_factory.mktemp("gateway"), GATEWAY.format(port=upstreams[2].port))
    return Address(server.port, upstreams[2], b"/workers/x", b"Authorization: Bearer tg-test-corpus-key\r\n")


@pytest.fixture(scope="module")
def protocol_alone(upstreams: list[Upstream], start_server: Any) -> Address:
    """The protocol class before a small proxy."""
    upstream = upstreams[0]
    rules = RequestRules("http")

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = [(b"host", b"x"), *request_headers(scope["headers"], rules, Origin(b"127.0.0.1"))]
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        lines = [b"%b %b HTTP/1.1" % (scope["method"].encode(), target), *(b"%b: %b" % pair for pair in headers)]
        await ask(upstream.port, b"\r\n".join([*lines, b"", body]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    served = start_server()
    served.app = proxy
    return Address(served.port, upstream)


async def ask(port: int, raw: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    await reader.read()
    writer.close()
    await writer.wait_closed()


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  upstream recorder {{ server 127.0.0.1:{upstream}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port} backlog=512;
    location / {{ proxy_pass http://recorder; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def nginx(upstreams: list[Upstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """A real nginx, proxying to its own upstream."""
    program = Path("/usr/sbin/nginx")
    if not program.exists():
        subprocess.run([ROOT / "scripts/setup", "system", "nginx"], check=False)
    if not program.exists():
        assert "CI" not in os.environ, "nginx is missing"
        pytest.skip("nginx is missing and could not be installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("nginx")
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, upstream=upstreams[1].port))
    command = [program, "-p", folder, "-c", config, "-e", folder / "error.log"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < end
            time.sleep(0.02)
        yield Address(port, upstreams[1])
    finally:
        process.terminate()
        process.communicate(timeout=10)


@dataclass
class Outcome:
    """What became of one case: the statuses and end of our connection, and what each reader saw."""

    statuses: list[int]
    closed: bool
    ours: list[Seen]
    nginx: list[Seen]
    h11: list[Seen]


def talk(port: int, raw: bytes, patience_s: float) -> tuple[list[int], bool]:
    """Send all, read until the server closes or is silent, for so long at first; gives the statuses and whether it
    closed."""
    answer, closed = b"", False
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(raw)
        client.settimeout(patience_s)
        try:
            while data := client.recv(65_536):
                answer += data
                client.settimeout(SILENCE_S)
            closed = True
        except TimeoutError:
            pass
        except ConnectionResetError:
            closed = True
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ") if part[:3].isdigit()]
    return [status for status in statuses if status != 100], closed


def h11_reads(case: Case) -> list[Seen]:
    """The requests that h11 reads, each answered at once."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(case.bytes_for())
    seen: list[Seen] = []
    request, body = None, b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return seen
        if isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            seen.append(normal(request.method, request.target, body, case.mark))
            connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return seen
            connection.start_next_cycle()
        else:
            return seen


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return load_cases()


@pytest.fixture
def outcome(case: Case, outcomes: dict[str, Outcome]) -> Outcome:
    return outcomes[case.name]


@pytest.fixture(scope="module")
def outcomes(cases: list[Case], candidate: Address, nginx: Address) -> dict[str, Outcome]:
    """The whole corpus, sent to all."""
    with ThreadPoolExecutor(64) as pool:
        ours = [case.bytes_for(candidate.prefix, candidate.credential) for case in cases]
        sent = [pool.submit(talk, candidate.port, raw, 20) for raw in ours]  # it answers all
        others = [pool.submit(talk, nginx.port, case.bytes_for(), 2.5) for case in cases]
        told = [each.result() for each in sent]
        for each in others:
            each.result()
    assert candidate.upstream.strays == []
    assert [request for request in candidate.upstream.requests if b"case" not in request[1]] == []
    return {
        case.name: Outcome(
            *answer, candidate.upstream.of(case, candidate.prefix), nginx.upstream.of(case), h11_reads(case)
        )
        for case, answer in zip(cases, told, strict=True)
    }
