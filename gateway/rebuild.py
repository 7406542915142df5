"""Limits at start, as the ledger knows them: what kill -9 took from memory, the rows give back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gateway.clock import Clock
from gateway.policy import Policy
from gateway.state.store import Used

if TYPE_CHECKING:
    from gateway.records.queries import Queries

_NS = 1_000_000_000
_BY = ("org", "client", "key", "model")
#: Seconds of a step, its name, and how many seconds before now it reaches back; the last has no end.
STEPS = ((60, "minute", 3 * 3600), (3600, "hour", 3 * 86_400), (86_400, "day", 0))


async def rebuild(policies: Iterable[Policy], queries: Queries, clock: Clock) -> None:
    """Has every policy that keeps limits count again what the ledger says was used. Before the first call."""
    history = LedgerHistory(queries, clock)
    for policy in policies:
        if hasattr(policy, "rebuild"):
            await policy.rebuild(history)


class LedgerHistory:
    """The store's History over the ledger's sums."""

    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries = queries
        self._wall_ns = clock.wall_ns

    async def since(self, wall_ns: int) -> Sequence[Used]:
        """One sum each from a whole minute until now."""
        return await self._sums(wall_ns, None, "", self._wall_ns())

    async def graded(self, wall_ns: int) -> Sequence[Used]:
        """Sums of minutes for the last hours, of hours before, of days before those; from then or a little before. And
        one request for each call whose end a crash took, whose tokens are in the sums already."""
        now_ns = self._wall_ns()
        rows: list[Used] = []
        until: int | None = None
        for step_s, name, reach_s in STEPS:
            since = max(wall_ns, now_ns - reach_s * _NS) if reach_s else wall_ns
            # The next step's intervals end where these begin, so none is counted twice or cut.
            coarser = 3600 if step_s == 60 else 86_400
            since -= since % (coarser * _NS)
            if until is None or since < until:
                rows += await self._sums(since, until, name, now_ns)
                until = since
        rows += [
            Used(min(now_ns, one.started_wall_ns), one.org, one.client, one.key, one.model, requests=1)
            for one in await self._queries.lost(wall_ns)
        ]
        return rows

    async def _sums(self, since: int, until: int | None, step: str, now_ns: int) -> list[Used]:
        found = await self._queries.usage((*_BY, step) if step else _BY, since, until)
        seconds = {name: step_s for step_s, name, _ in STEPS}
        return [
            Used(
                wall_ns=min(now_ns, _start_ns(row.group[step]) + seconds[step] * _NS) if step else now_ns,
                org=row.group["org"],
                client=row.group["client"],
                key=row.group["key"],
                model=row.group["model"],
                requests=row.calls - row.refused,
                input_tokens=row.input_tokens,
                cached_tokens=row.cached_tokens,
                output_tokens=row.output_tokens,
                reasoning_tokens=row.reasoning_tokens,
                charge_pusd=row.charge_pusd,
                unresolved_pusd=row.unresolved_pusd,
            )
            for row in found
        ]


def _start_ns(text: str) -> int:
    """An interval's start as the ledger writes it, in UTC: "2026-11-24", "2026-11-24T10:00Z"."""
    from datetime import UTC, datetime, timedelta

    at = datetime.fromisoformat(text)
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
