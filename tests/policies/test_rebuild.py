"""Limits at start, rebuilt from a real ledger: kill -9 loses nothing of money and of long windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.clients import BudgetRules, QuotaRules
from gateway.ids import Ids
from gateway.rebuild import LedgerHistory, rebuild
from gateway.records.options import Options
from gateway.records.rows import AttemptRow, CallRow
from gateway.records.store import Records
from gateway.state.store import Used

NS = 1_000_000_000
MINUTE, HOUR, DAY = 60, 3600, 86_400
USD = 10**12
NOON = 1_795_521_600 * NS  # 24 November 2026, 12:00 UTC


def write(records: Records, ago_s: int, *, model: str = "m", resolved: bool = True, cost_pusd: int = USD) -> None:
    """A call of acme with 70 tokens in (20 cached) and 30 out (10 reasoning); or an attempt that nobody settled."""
    wall_ns = NOON - ago_s * NS
    call_id = Ids().new(wall_ns)
    row = AttemptRow(
        id=f"{call_id}.1", call_id=call_id, n=1, org="org", client="acme", key="acme-key", route="chat",
        provider="p", model=model, upstream_model=model, started_wall_ns=wall_ns, worst_pusd=cost_pusd,
        worst_tokens=500,
    )  # fmt: skip
    records.ledger.intend(row)
    if not resolved:
        return
    row.outcome, row.input_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens = "served", 70, 20, 30, 10
    row.cost_pusd = cost_pusd
    call = CallRow(
        id=call_id, org="org", client="acme", key="acme-key", route="chat", method="POST", path="/", dialect="openai",
        model=model, served_model=model, provider="p", started_wall_ns=wall_ns, outcome="served", status=200,
        attempts=1, cost_pusd=cost_pusd, charge_pusd=cost_pusd,
    )  # fmt: skip
    records.ledger.settle(row, call)


async def opened(bench: Any, tmp_path: Path) -> Records:
    bench.clock.jump_wall((NOON - bench.clock.wall_ns()) // NS)
    return await Records.open(tmp_path / "data", Options(), clock=bench.clock)


async def test_every_row_is_counted_once_and_not_before_its_time(bench: Any, tmp_path: Path) -> None:
    records = await opened(bench, tmp_path)
    times = [
        5,
        MINUTE,
        2 * HOUR,
        3 * HOUR - 1,
        3 * HOUR,
        11 * HOUR,
        DAY - 1,
        2 * DAY,
        3 * DAY,
        4 * DAY,
        20 * DAY,
        29 * DAY,
    ]
    for ago_s in times:
        write(records, ago_s)
    await records.ledger.flush()
    history = LedgerHistory(records.queries, bench.clock)
    graded = await history.graded(NOON - 30 * DAY * NS)
    assert sum(row.requests for row in graded) == len(times)
    assert sum(row.input_tokens + row.output_tokens for row in graded) == 100 * len(times)
    ages = sorted((NOON - row.wall_ns) // NS for row in graded for _ in range(row.requests))
    for ago_s, age in zip(times, ages, strict=True):
        assert ago_s - DAY <= age <= ago_s
        assert ago_s >= 3 * HOUR or ago_s - MINUTE <= age
    (whole,) = await history.since(NOON - DAY * NS)
    assert whole == Used(NOON, "org", "acme", "acme-key", "m", 7, 490, 140, 210, 70, 7 * USD, 0)
    assert await history.graded(NOON) != []  # the minute that is now
    await records.aclose()


async def test_policies_count_again_what_was_used_before_the_crash(bench: Any, tmp_path: Path) -> None:
    records = await opened(bench, tmp_path)
    for ago_s in (20, 30 * MINUTE, 2 * DAY, 12 * DAY, 27 * DAY):
        write(records, ago_s)
    write(records, 90, resolved=False, cost_pusd=4 * USD)
    await records.ledger.flush()
    await records.aclose()
    records = await opened(bench, tmp_path)  # the attempt that nobody settled now counts at its worst
    assert records.recovered.unresolved == 1
    rules = QuotaRules(requests=("60/minute", "100/day", "1000/30 days"), tokens=("5000/day",))
    bench.person("acme", quota=rules, budget=BudgetRules(day_pusd=50 * USD, month_pusd=100 * USD))
    quota, budget = bench.policy("quota"), bench.policy("budget")
    await rebuild([quota, budget], records.queries, bench.clock)
    await records.aclose()
    call = bench.call((bench.directory.client("acme"), bench.directory.key("acme-key")))
    levels = await bench.store.levels(quota.limits(call))
    # The minute that just ended counts as a whole from its end.
    assert [level.remaining for level in levels] == [59, 97, 994, 5000 - 200 - 500]
    assert {one.span: one.left_pusd for one in await budget.status()} == {"day": 44 * USD, "month": 92 * USD}
