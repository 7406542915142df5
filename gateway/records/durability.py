"""Waiting for the disk: what `durability = "power"` adds. One wait serves all calls that came before it began."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from gateway.records.journal import Journal, LedgerFull


class Durable:
    """Groups the calls that wait for the journal to be on the disk."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._synced_seq = 0
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "tidegate-sync")

    async def reached(self, seq: int) -> None:
        """Returns when the record `seq` survives a power cut. Raises LedgerFull when the disk fails."""
        while self._synced_seq < seq:
            if self._running is None:
                self._running = asyncio.create_task(self._sync())
            await asyncio.shield(self._running)

    async def _sync(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._synced_seq = await loop.run_in_executor(self._thread, self._journal.sync)
        except OSError as error:
            raise LedgerFull(f"The ledger's disk failed ({error.strerror}); nothing was sent.") from error
        finally:
            self._running = None

    async def aclose(self) -> None:
        if self._running is not None:
            await asyncio.wait([self._running])
        self._thread.shutdown()
