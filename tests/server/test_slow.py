"""1,000 slow senders are closed on schedule, and meanwhile cost another client next to nothing."""

import os
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNT = 1_000
TIMEOUT_S = 3.0
SLICE_S = 0.2
HEAD = b"GET /slow HTTP/1.1\r\nHost: x\r\nX-Padding: 123456789012345678901234567890\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

SERVER = f"""
import sys
from uvicorn import Config, Server
from gateway.server.limits import WireLimits
from gateway.server.protocol import protocol_class

async def app(scope, receive, send):
    await receive()
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}})
    await send({{"type": "http.response.body", "body": b"ok"}})

limits = WireLimits(header_timeout_s={TIMEOUT_S}, body_timeout_s={TIMEOUT_S}, min_body_rate=100)
config = Config(app, fd=int(sys.argv[1]), http=protocol_class(limits), log_config=None, lifespan="off", backlog=2048)
Server(config).run()
"""


@pytest.fixture
def own_core() -> Iterator[set[int] | None]:
    """With two cores or more, this process keeps the last one and the server gets the first; gives that."""
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        yield None
        return
    os.sched_setaffinity(0, {max(before)})
    yield {min(before)}
    os.sched_setaffinity(0, before)


@pytest.fixture
def server(own_core: set[int] | None) -> Iterator[tuple[int, int]]:
    """Port and process id of a server in a process of its own; room for the sockets here."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files[1], max(files[0], 4 * COUNT)), files[1]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    number = listener.fileno()
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(number)], pass_fds=[number], cwd=ROOT)
    if own_core is not None:
        os.sched_setaffinity(process.pid, own_core)
    yield listener.getsockname()[1], process.pid
    process.terminate()
    assert process.wait(10) in (0, -15)
    listener.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


@pytest.fixture
def port(server: tuple[int, int]) -> int:
    return server[0]


class SlowSenders:
    """1,000 connections: a third silent, a third with a head and a third with a body of one byte a second."""

    def __init__(self, port: int) -> None:
        self.opened = time.monotonic()
        self.sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(COUNT)]
        self.heads, self.bodies = self.sockets[COUNT // 3 : 2 * COUNT // 3], self.sockets[2 * COUNT // 3 :]
        for each in self.bodies:
            each.sendall(POST)
        self.gone: set[socket.socket] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drip)
        self._thread.start()

    def _drip(self) -> None:
        for number in range(60):
            for each in self.heads:
                self._send(each, HEAD[number : number + 1])
            for each in self.bodies:
                self._send(each, b"x")
            if self._stop.wait(1):
                return

    def _send(self, each: socket.socket, byte: bytes) -> None:
        if each in self.gone:
            return
        try:
            each.send(byte)
        except OSError:
            self.gone.add(each)

    def closings(self, until_s: float) -> list[float]:
        """When the server closed each, in seconds from the start."""
        found = []
        with selectors.DefaultSelector() as selector:
            for each in self.sockets:
                selector.register(each, selectors.EVENT_READ)
            while selector.get_map() and time.monotonic() < self.opened + until_s:
                for key, _ in selector.select(0.1):
                    if not self._is_open(key.fileobj):  # type: ignore[arg-type]  # only sockets are registered
                        selector.unregister(key.fileobj)
                        self.gone.add(key.fileobj)  # type: ignore[arg-type]
                        found.append(time.monotonic() - self.opened)
        return found

    @staticmethod
    def _is_open(each: socket.socket) -> bool:
        try:
            return each.recv(4_096) != b""
        except OSError:
            return False

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for each in self.sockets:
            each.close()


@contextmanager
def slow_senders(port: int) -> Iterator[SlowSenders]:
    senders = SlowSenders(port)
    try:
        yield senders
    finally:
        senders.close()


class FastClient:
    """A client that asks again as soon as it has its answer."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)

    def rate(self, slices: int) -> list[float]:
        """Requests a second, in each of so many slices of time."""
        return [self._slice(time.perf_counter) for _ in range(slices)]

    def throughput(self, process: int) -> float:
        """Requests that the server answers in a second of its own processor time: what others on the machine use
        changes the rate, but not this."""
        number = (~process << 3) | 2  # the clock of another process (clock_getcpuclockid(3))
        return self._slice(lambda: time.clock_gettime(number))

    def _slice(self, now: Callable[[], float]) -> float:
        count, start = 0, now()
        while (seconds := now() - start) < SLICE_S:
            self.socket.sendall(GET)
            assert self.socket.recv(4_096).startswith(b"HTTP/1.1 200")
            count += 1
        return count / seconds


def test_slow_senders_are_closed_on_schedule(port: int) -> None:
    client = FastClient(port)
    with slow_senders(port) as senders:
        served: list[float] = []
        watching = threading.Thread(target=lambda: served.extend(client.rate(int(TIMEOUT_S / SLICE_S))))
        watching.start()
        closings = senders.closings(TIMEOUT_S + 4)
        watching.join()
    client.socket.close()
    assert len(closings) == COUNT
    assert min(closings) >= TIMEOUT_S - 0.5
    assert max(closings) <= TIMEOUT_S + 3
    assert min(served) > 0


@pytest.mark.slow
def test_others_keep_their_throughput_beside_slow_senders(server: tuple[int, int]) -> None:
    """Pairs of blocks in one run, and the median of their ratios; more pairs while the machine is too noisy to tell."""
    port, process = server
    client = FastClient(port)
    ratios: list[float] = []
    end = time.monotonic() + 80
    while time.monotonic() < end and (len(ratios) < 5 or statistics.median(ratios) < 0.95):
        client.throughput(process)  # the going of the senders before is not measured
        alone = client.throughput(process)
        with slow_senders(port):
            client.throughput(process)  # nor is their coming
            ratios.append(client.throughput(process) / alone)
    client.socket.close()
    ratio = statistics.median(ratios)
    print(f"throughput beside {COUNT} slow senders: {ratio:.3f} (median of {len(ratios)} pairs)")
    assert ratio >= 0.95
