"""The ledger as the event loop sees it: intend before sending, settle once, never a wait or a system call."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from gateway.records.durability import Durable
from gateway.records.frames import CALL, FRAME_HEAD, INTENT, MAX_PAYLOAD, SETTLEMENT
from gateway.records.journal import Journal, LedgerFull
from gateway.records.posting import Posting
from gateway.records.queries import Queries, Spent
from gateway.records.rows import AttemptRow, CallRow
from gateway.records.writer import Writer

__all__ = ["By", "Ledger", "LedgerFull", "Spent"]

By = Literal["org", "client", "key", "model", "provider", "route"]

_RESERVE = 4096  # bytes in the journal that each intent sets aside for its settlement
_SHORT = _RESERVE - FRAME_HEAD  # payloads up to this always fit
_LONGEST_TEXT = 96  # bytes of a text, where a row must fit into what was set aside
_MOST_LATE = 10_000
#: How long who reads waits for the newest calls, in seconds, while the database takes no writes.
READ_PATIENCE_S = 10.0
_LARGEST = 2**63 - 1


class Ledger:
    """Made by `Records.open`. Every attempt has exactly one row, also after kill -9."""

    def __init__(
        self, journal: Journal, writer: Writer, posting: Posting, queries: Queries, durable: Durable | None
    ) -> None:
        self._journal = journal
        self._writer = writer
        self._posting = posting
        self._queries = queries
        self._durable = durable
        self._open: set[str] = set()
        self._encode = msgspec.msgpack.Encoder(enc_hook=repr).encode  # notes may hold anything
        self.dropped = 0  # calls without an attempt that found no room, even in memory

    def intend(self, row: AttemptRow) -> None:
        """Journals an attempt before it is sent. Raises LedgerFull: then it must not be sent."""
        payload = self._encode(row)
        if len(payload) > _SHORT:
            payload = self._encode(shortened(row))
        self._journal.append(INTENT, payload, _RESERVE)
        self._open.add(row.id)

    async def durable(self) -> None:
        """Returns when all that was intended so far survives what `durability` promises; at once for "process"."""
        if self._durable is not None:
            await self._durable.reached(self._journal.last_seq)

    def settle(self, row: AttemptRow, call: CallRow | None) -> None:
        """Journals how an attempt ended; with the call's row when the call ended too. Never refuses. An attempt that
        is settled already stays as it is."""
        if row.id not in self._open:  # settled already, such as by a failover that then found no further target
            if call is not None:
                self.record(call)
            return
        try:
            payload = self._encode((row, call))
        except OverflowError:  # a figure that no row can hold
            row, call = shortened(row), None if call is None else shortened(call)
            payload = self._encode((row, call))
        if len(payload) > _SHORT and not self._journal.fits(payload, _RESERVE):
            payload = self._encode((shortened(row), None if call is None else shortened(call)))
        self._open.remove(row.id)
        self._journal.append_reserved(SETTLEMENT, payload, _RESERVE)
        self._writer.appended()

    def record(self, call: CallRow) -> None:
        """Journals a call that ended without a (further) attempt: refused, or answered here. Never refuses: in a full
        journal it waits in memory, and only there."""
        try:
            payload = self._encode(call)
        except OverflowError:
            payload = self._encode(shortened(call))
        if len(payload) > MAX_PAYLOAD:
            payload = self._encode(shortened(call))
        self._journal.offer(CALL, payload)
        if self._journal.late > _MOST_LATE:
            self._journal.drop_late()
            self.dropped += 1
        self._writer.appended()

    async def correct(self, row: AttemptRow) -> None:
        """Replaces a settled attempt by what was learnt later; all sums follow."""
        await self._writer.run(lambda connection: self._posting.correct(connection, row), full=False)

    async def spent(self, since_wall_ns: int, until_wall_ns: int | None = None, by: By = "client") -> dict[str, Spent]:
        """Sums since a whole minute, by org, client, key, ...; for budgets at start-up."""
        return await self._queries.spent(since_wall_ns, until_wall_ns, by)

    @property
    def open(self) -> int:
        """Attempts that are under way."""
        return len(self._open)

    def health(self) -> list[str]:
        """Reasons why the ledger is not well; empty when it is."""
        reasons = self._writer.health()
        if self._journal.shut or self._journal.room - self._journal.reserved < 2 * _RESERVE:
            reasons.append("the journal is full, calls are refused")
        if self._journal.late:
            reasons.append(f"{self._journal.late} calls without an attempt wait in memory")
        if self.dropped:
            reasons.append(f"{self.dropped} calls without an attempt were not recorded")
        return reasons

    async def erase(self, org: str) -> int:
        """Deletes all rows and sums of an org; returns how many calls and attempts went. Use `Records.erase`."""
        return await self._writer.run(lambda connection: self._posting.erase(connection, org))

    async def flush(self, patience_s: float = math.inf) -> None:
        """Returns when all that was journalled before is committed to the database; what waits in memory too, as far
        as open intents leave room for it. Raises RecordsError when the database takes no writes for so long."""
        while True:
            self._journal.catch_up()
            late = self._journal.late
            await self._writer.flush(patience_s)
            if late == 0 or self._journal.late >= late:
                return


def shortened(row: Any) -> Any:
    """A copy whose encoding fits into what an intent sets aside: texts cut, notes dropped, figures cut to 64 bits."""
    changes: dict[str, Any] = {}
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if isinstance(value, str) and len(value.encode()) > _LONGEST_TEXT:
            changes[name] = value.encode()[:_LONGEST_TEXT].decode(errors="ignore")
        elif isinstance(value, dict):
            changes[name] = None
        elif isinstance(value, int) and abs(value) > _LARGEST:
            changes[name] = _LARGEST
    return msgspec.structs.replace(row, **changes)
