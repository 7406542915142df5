"""The ledger as the event loop sees it: intend before sending, settle once, never a wait or a system call."""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.records.rows import AttemptRow, CallRow

By = Literal["org", "client", "key", "model", "provider", "route"]


class Spent(msgspec.Struct, frozen=True):
    """What one org, client or key used in a period: unresolved attempts count at their worst case."""

    requests: int
    tokens: int
    cost_pusd: int  # what providers charge
    charge_pusd: int  # what the client pays


class Ledger:
    """Made by `Records.open`. Every attempt has exactly one row, also after kill -9."""

    def intend(self, row: AttemptRow) -> None:
        """Journals an attempt before it is sent. Raises LedgerFull: then it must not be sent."""
        raise NotImplementedError

    async def durable(self) -> None:
        """Returns when all that was intended so far survives what `durability` promises; at once for "process"."""

    def settle(self, row: AttemptRow, call: CallRow | None) -> None:
        """Journals how an attempt ended, once; with the call's row when the call ended too. Never refuses."""
        raise NotImplementedError

    def record(self, call: CallRow) -> None:
        """Journals a call that ended without a (further) attempt: refused, or answered here. A full journal drops
        refusals (counted in `dropped`) and raises LedgerFull for others."""
        raise NotImplementedError

    async def spent(self, since_wall_ns: int, until_wall_ns: int | None = None, by: By = "client") -> dict[str, Spent]:
        """Sums since a whole minute, by org, client or key; for budgets at start-up."""
        raise NotImplementedError

    def health(self) -> list[str]:
        """Reasons why the ledger is not well; empty when it is."""
        raise NotImplementedError

    async def erase(self, org: str) -> int:
        """Deletes all rows and sums of an org; returns how many calls and attempts went."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Returns when all that was journalled before is committed to the database."""
        raise NotImplementedError
