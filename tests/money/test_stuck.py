"""The disk is full, or another process holds the database: a whole gateway fails closed, stays quick, and recovers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.control.socket import ask

CALLERS = 16
USD = 10**12

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
connection.close()
"""


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Another process holds the database."""
    command = [sys.executable, "-c", LOCKER, str(data_dir / "tidegate.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as locker:
        assert locker.stdout is not None
        assert locker.stdin is not None
        assert locker.stdout.readline() == "locked\n"
        yield
        locker.stdin.close()


@contextlib.contextmanager
def full(data_dir: Path) -> Iterator[None]:
    """The file system has no room."""
    ballast = data_dir / "ballast"
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(fd, bytes(4096))
    os.close(fd)
    yield
    ballast.unlink()


class Probe:
    """How long the gateway's loop takes to answer a request that needs nothing else, on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.took_ms: list[float] = []
        self._port = port
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                began = time.perf_counter()
                writer.write(b"GET /livez HTTP/1.1\r\nhost: gateway\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
                self.took_ms.append((time.perf_counter() - began) * 1000)
                await asyncio.sleep(0.005)
        finally:
            writer.close()

    def p99_ms(self) -> float:
        """Since the last time it was asked."""
        took, self.took_ms = self.took_ms, []
        return statistics.quantiles(took, n=100)[98]

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@pytest.mark.parametrize("trouble", [locked, full])
async def test_fails_closed_stays_quick_and_recovers_without_a_restart(
    trouble: Callable[[Path], contextlib.AbstractContextManager[None]],
    tmp_path: Path,
    tiny_disk: Callable[..., Path],
    start: Callable[..., Any],
    demo: Any,
    load: Callable[[int, int], Any],
    book: Callable[[Path], Any],
    config: str,
) -> None:
    data_dir = tiny_disk(24, tmp_path / "gateway-0" / "data")
    settings = config.format(origin=demo.origin) + '\n[records]\njournal = "1 MiB"\n'
    server = await asyncio.to_thread(start, settings, log_level="warning")

    async def until(what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not what():
            assert time.monotonic() < deadline, callers.statuses
            await asyncio.sleep(0.01)

    callers, probe = load(server.port, CALLERS), Probe(server.port)
    callers.go()
    await until(lambda: callers.statuses.get("200", 0) > 100)
    probe.took_ms.clear()  # the first estimate loads the vocabulary
    await until(lambda: callers.statuses["200"] > 300)
    well_ms = probe.p99_ms()
    with trouble(data_dir):
        await until(lambda: callers.statuses.get("503", 0) > 200)
        sent = len(demo.entries())
        refused = callers.statuses["503"]
        await until(lambda: callers.statuses["503"] > refused + 100)
        stuck_ms = probe.p99_ms()
        callers.pause()
        await until(lambda: callers.busy == 0)
        assert len(demo.entries()) <= sent + CALLERS  # those that were on their way: it is closed
        status, _, page = await asyncio.to_thread(server.request, "GET", "/readyz", None, None)
        assert status == 503
        assert "full" in " ".join(json.loads(page)["reasons"])
        status, headers, page = await asyncio.to_thread(server.request, "POST", "/v1/chat/completions", ASKED, KEY)
        assert (status, json.loads(page)["error"]["code"]) == (503, "ledger_unavailable")
        assert headers["retry-after"]
    served = callers.statuses["200"]
    callers.go()
    await until(lambda: callers.statuses["200"] > served + 50)
    callers.pause()
    await until(lambda: callers.busy == 0)
    levels = await ask(data_dir, "budget_show", scope="client", subject="acme")
    await probe.stop()
    await callers.stop()
    assert server.process.poll() is None
    assert await asyncio.to_thread(server.stop) == 0

    seen = {entry["attempt"] for entry in demo.entries() if entry["event"] == "attempt"}
    ledger = book(server.folder)
    rows = ledger.attempts()
    assert rows.keys() == seen
    assert {row["outcome"] for row in rows.values()} <= {"served", "gone"}
    assert [int(Decimal(level["used_usd"]) * USD) for level in levels] == [ledger.charged()]
    print(f"p99 of the loop's answer: well {well_ms:.1f} ms, stuck {stuck_ms:.1f} ms")
    assert stuck_ms < max(50.0, 3 * well_ms)


KEY = "tg-acme-secret-key"
ASKED = {"model": "metered", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
