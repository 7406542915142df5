"""The memory store's snapshots on disk: written every few seconds beside the calls and at the end, read at start.

It makes restarts smooth, it is not what money rests on: budgets and long windows are rebuilt from the ledger, which
loses nothing. So a snapshot that can't be written is a warning, and one that can't be read is left alone.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gateway.state.seconds import seconds_of
from gateway.state.snapshot import VERSION, BadSnapshotError, Header, encode, seal, unseal

if TYPE_CHECKING:
    from gateway.state.memory import MemoryStore

#: Limits written down between two turns of the event loop: well under a millisecond.
BATCH = 100
#: At least this many times as long as a snapshot took lies between two: at most 2 % of a core.
REST = 50


class Journal:
    """Owns one file. `boot` names the run of the machine, to know whether the monotonic clock still goes on."""

    def __init__(self, path: Path, interval_s: float = 2.0, boot: str | None = None) -> None:
        self.path = path
        self.failing = ""  # why the last snapshot could not be written
        self._interval_s = interval_s
        self._boot = boot_id() if boot is None else boot
        self._end = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self, store: MemoryStore) -> None:
        """Takes up the last snapshot and begins to write new ones."""
        try:
            data = await asyncio.to_thread(self.path.read_bytes)
        except FileNotFoundError:
            data = b""
        if data:
            self._take_up(store, data)
        self._task = asyncio.create_task(self._write_always(store), name="store journal")

    def _take_up(self, store: MemoryStore, data: bytes) -> None:
        try:
            header, _ = unseal(data)
            store.load(data, self.down_ns(header, store))
        except BadSnapshotError as error:
            structlog.get_logger().warning("store snapshot not taken up", path=str(self.path), error=str(error))

    def down_ns(self, header: Header, store: MemoryStore) -> int:
        """How long the process was away: by the monotonic clock if the machine still runs, else by the wall clock."""
        if self._boot and header.boot == self._boot:
            return max(0, store.clock.now_ns() - header.now_ns)
        return max(0, store.clock.wall_ns() - header.wall_ns)

    async def aclose(self, store: MemoryStore) -> None:
        """Writes the last snapshot, after the one that is being written."""
        if self._task is not None:
            self._end.set()
            await self._task
            await self.write(store)

    async def _write_always(self, store: MemoryStore) -> None:
        rest_s = self._interval_s
        while not self._end.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._end.wait()
            if store.changed:
                store.changed = False
                began = store.clock.now_ns()
                await self.write(store)
                rest_s = max(self._interval_s, REST * seconds_of(store.clock.now_ns() - began))

    async def write(self, store: MemoryStore) -> None:
        """Writes a snapshot, a few limits at a time, so that no call waits for it."""
        header = Header(VERSION, self._boot, store.clock.now_ns(), store.clock.wall_ns())
        keys, parts = store.keys(), []
        for start in range(0, len(keys), BATCH):
            parts.append(encode(store.lines(keys[start : start + BATCH])))
            await asyncio.sleep(0)
        try:
            await asyncio.to_thread(_replace, self.path, header, parts)
        except OSError as error:
            if not self.failing:
                structlog.get_logger().warning("store snapshot not written", path=str(self.path), error=str(error))
            self.failing = str(error)
        else:
            self.failing = ""


def _replace(path: Path, header: Header, parts: list[bytes]) -> None:
    """The new file takes the old one's place whole or not at all."""
    new = path.with_suffix(".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, 0o600)  # one of an earlier version may be there
        file.write(seal(header, b"".join(parts)))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def boot_id() -> str:
    """Names the run of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
