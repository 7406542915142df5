"""Clients that don't read: upstream is held back, what waits for them is bounded, and they are let go in time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

MIB = 1024 * 1024
#: A stream whose beginning fills every buffer, and whose end does not come.
ENDLESS = "chunks=5000; chunk-ms=100; huge-event=20000000"


def resident(server: Any) -> int:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * 4096


def test_a_stream_that_nobody_reads_holds_its_upstream_back(begin: Any, line: Any) -> None:
    """200 MB are asked for and not read: the gateway holds little of it, and the client gets all of it later."""
    server = begin("[policy.batch]\nenabled = false\n")  # else it loads a vocabulary of 60 MB once it is ready
    before = resident(server)
    streams = [line(server) for _ in range(4)]
    for one in streams:
        one.post("chunks=100; huge-event=50000000", stream=True)
    for one in streams:
        one.until(b"data: ")
    deadline = time.monotonic() + 2
    most = 0
    while time.monotonic() < deadline:
        most = max(most, resident(server) - before)
        time.sleep(0.05)
    assert most < 60 * MIB, f"{most / MIB:.0f} MiB"
    size = len(streams[0].got)
    while data := streams[0].socket.recv(MIB):
        size += len(data)
        if data.endswith(b"0\r\n\r\n"):
            break
    assert size > 50_000_000


def test_a_reader_that_stalls_is_cut_and_its_upstream_with_it(
    begin: Any, line: Any, wait: Any, demo_process: Any
) -> None:
    server = begin("[server]\nwrite_timeout_s = 1\n")
    one = line(server)
    one.post(ENDLESS, stream=True)
    one.until(b"data: ")
    wait(lambda: demo_process.stats()["in_flight"] == 1)
    wait(lambda: demo_process.stats()["in_flight"] == 0)
    wait(lambda: [row["outcome"] for row in server.calls()] == ["gone"])
    with pytest.raises(ConnectionResetError):
        drain(one)


def drain(one: Any) -> None:
    while one.socket.recv(65536):
        pass


@pytest.mark.parametrize("least", [20_000, 1])
def test_a_reader_of_drops_is_cut(begin: Any, line: Any, wait: Any, least: int) -> None:
    """A little now and then is not enough: 10 KB a second, where so many bytes a second are the least."""
    server = begin(f"[server]\nwrite_timeout_s = 1\n[overload]\nmin_read_rate = {least}\n")
    one = line(server, buffer=4096)
    one.post(ENDLESS, stream=True)
    one.until(b"data: ")
    since = time.monotonic()
    try:
        while one.socket.recv(500) and time.monotonic() - since < 6:
            time.sleep(0.05)
    except ConnectionResetError:
        pass
    assert (time.monotonic() - since < 6) == (least > 1)


def test_all_slow_readers_together_are_bounded(begin: Any, line: Any, wait: Any, demo_process: Any) -> None:
    """Forty streams that nobody reads: beyond the bound some are ended, the others stay."""
    server = begin('[overload]\nunsent_limit = "1 MiB"\n')
    lines = [line(server) for _ in range(40)]
    before = demo_process.stats()["calls"]
    for one in lines:
        one.post(ENDLESS, stream=True)
    wait(lambda: demo_process.stats()["calls"] == before + 40)
    wait(lambda: demo_process.stats()["in_flight"] < 30)
    time.sleep(1)  # two more sweeps
    assert demo_process.stats()["in_flight"] > 0
    assert server.request("GET", "/livez", key=None)[0] == 200
