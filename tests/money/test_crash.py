"""kill -9 of a whole gateway under load, again and again: the ledger, the provider's own log and the budgets agree.

TIDEGATE_KILLS sets how often (8; the proof kills 200 times).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.control.socket import ask

KILLS = int(os.environ.get("TIDEGATE_KILLS", "8"))
CALLERS = 16
USD = 10**12


async def used_pusd(data_dir: Path) -> int:
    """What the client's budget of this month counts, as the running gateway tells it."""
    levels = await ask(data_dir, "budget_show", scope="client", subject="acme")
    (used,) = [Decimal(level["used_usd"]) for level in levels if level["span"] == "month"]
    return int(used * USD)


def as_summed(row: dict[str, Any]) -> tuple[Any, ...]:
    """A line of `tidegate usage` in the order of the ledger's sums."""
    charge, cost = (int(Decimal(row[name]) * USD) for name in ("charge_usd", "cost_usd"))
    counts = row["calls"], charge, row["attempts"], row["input_tokens"], row["output_tokens"], cost
    return row["client"], row["model"], row["provider"], *counts


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_every_attempt_that_the_provider_saw_has_exactly_one_row(
    start: Callable[..., Any],
    demo: Any,
    load: Callable[[int, int], Any],
    book: Callable[[Path], Any],
    config: str,
    priced: Callable[[str, int, int], int],
) -> None:
    server = await asyncio.to_thread(start, config.format(origin=demo.origin), log_level="warning")
    ledger, data_dir = book(server.folder), server.folder / "data"
    callers = load(server.port, CALLERS)
    for kill in range(KILLS):
        callers.go()
        await asyncio.sleep(random.uniform(0, 0.6))
        async with asyncio.timeout(30):  # enough calls for what is asserted of them, on a slow machine as well
            while callers.statuses.get("200", 0) < 12 * kill:
                await asyncio.sleep(0.01)
        server.kill()
        if kill % 5 == 4:  # and again while it recovers
            server.begin()
            await asyncio.sleep(random.uniform(0, 1.0))
            server.kill()
        callers.pause()
        await asyncio.to_thread(server.restart, kill=True)
        async with asyncio.timeout(10):
            while callers.busy:
                await asyncio.sleep(0.01)
        assert await used_pusd(data_dir) == ledger.charged()
    await callers.stop()
    assert await asyncio.to_thread(server.stop) == 0

    seen = [entry for entry in demo.entries() if entry["event"] == "attempt"]
    rows = ledger.attempts()
    assert len(seen) > 10 * KILLS
    assert max(Counter(entry["attempt"] for entry in seen).values()) == 1
    by_id = {entry["attempt"]: entry for entry in seen}
    assert by_id.keys() - rows.keys() == set()
    # Besides, only intents whose process was killed before it sent them, flagged and at their worst.
    extra = {id: rows[id] for id in rows.keys() - by_id.keys()}
    assert {(row["outcome"], row["estimated"]) for row in extra.values()} <= {("unresolved", 1)}
    assert all(row["cost_pusd"] == row["worst_pusd"] for row in extra.values())
    assert len(extra) <= KILLS * CALLERS
    # To the token for all that settled, and so are the sums.
    whole = {id: row for id, row in rows.items() if row["outcome"] == "served"}
    assert len(whole) > 5 * KILLS
    assert {row["model"] for row in whole.values()} == {"metered", "claude"}
    for id, row in whole.items():
        said = by_id[id]
        assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (said["in"], said["out"], 0)
        assert row["cost_pusd"] == priced(row["model"], said["in"], said["out"])
    assert {row["outcome"] for row in rows.values()} <= {"served", "unresolved", "gone"}
    usage = await asyncio.to_thread(server.tidegate, "usage", "--by", "client,model,provider", "--json")
    assert [as_summed(row) for row in usage] == ledger.sums()
    unresolved = sum(row["outcome"] == "unresolved" for row in rows.values())
    print(
        f"{KILLS} kills: {len(seen)} attempts seen, {len(whole)} settled, {unresolved} unresolved, {len(extra)} unsent"
    )
