"""Reads of the ledger: sums by any dimension and time, pages of calls, the attempts of one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from gateway.records.rows import AttemptRow, CallRow


class UsageRow(msgspec.Struct):
    """Sums of one group; `group` names its dimensions and times (ISO, UTC). Money in pico-dollars."""

    group: dict[str, str]
    calls: int = 0
    refused: int = 0
    failed: int = 0
    attempts: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_pusd: int = 0
    charge_pusd: int = 0
    saved_pusd: int = 0
    estimated: int = 0  # attempts whose usage is our estimate
    unpriced: int = 0  # attempts without a price


class Page(msgspec.Struct):
    """Rows, newest first, and the cursor of the next page ("" at the end)."""

    rows: list[CallRow]
    cursor: str = ""


class Queries:
    """Runs on read-only connections in threads of its own; never on the loop, never in the writer's way."""

    async def usage(
        self,
        by: Sequence[str] = ("client",),
        since_wall_ns: int | None = None,
        until_wall_ns: int | None = None,
        filters: Mapping[str, str] | None = None,
    ) -> list[UsageRow]:
        """Sums grouped by org, client, key, model, provider, route, minute, hour, day; bounds are whole minutes."""
        raise NotImplementedError

    async def calls(self, cursor: str = "", limit: int = 100, filters: Mapping[str, str] | None = None) -> Page:
        raise NotImplementedError

    async def call(self, call_id: str) -> CallRow | None:
        raise NotImplementedError

    async def attempts(self, call_id: str) -> list[AttemptRow]:
        raise NotImplementedError
