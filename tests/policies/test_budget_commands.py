"""`tidegate budget` against a running admin socket, with a real database behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine
from sqlalchemy.pool import StaticPool
from typer.testing import CliRunner, Result

from gateway.call import Outcome
from gateway.cli.budget import app
from gateway.clients import BudgetRules
from gateway.control.budgets import BudgetDesk
from gateway.control.socket import AdminSocket
from gateway.periods import Adjustments
from gateway.records.adjustments import AdjustmentRows, adjustments_table
from gateway.usage import Usage

USD = 10**12


class Database:
    """Writer and queries of the records, as far as they are needed here, over one SQLite in memory."""

    def __init__(self) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        metadata = MetaData()
        self.table = adjustments_table(metadata)
        metadata.create_all(self.engine)

    async def run(self, job: Callable[[Any], Any]) -> Any:
        with self.engine.begin() as connection:
            return job(connection)

    read = run


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    made = Database()
    yield made
    made.engine.dispose()


@pytest.fixture
async def rows(database: Database) -> AdjustmentRows:
    return AdjustmentRows(database.table, database, database)  # type: ignore[arg-type]  # stand-ins


@pytest.fixture
async def budget(bench: Any, rows: AdjustmentRows, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Runs a command against the socket of a gate with client acme, 10 USD a month; the result's JSON, or the text."""
    bench.person("acme", budget=BudgetRules(month_pusd=10 * USD))
    policy = bench.policy("budget")
    bench.running = bench.pipeline(policy)
    desk = BudgetDesk(
        bench.adjustments, rows.add, lambda: [policy], bench.directory, bench.events, bench.clock, bench.time_zone
    )
    socket = AdminSocket(tmp_path, desk.verbs())
    await socket.start()

    async def command(*arguments: str, fails: bool = False) -> Any:
        asked = [*arguments, "--data-dir", str(tmp_path)]
        result: Result = await asyncio.to_thread(CliRunner().invoke, app, asked)
        assert (result.exit_code != 0) == fails, result.output
        return json.loads(result.stdout) if "--json" in arguments else result.output

    yield command
    await socket.aclose()


async def test_shows_how_budgets_stand(bench: Any, budget: Any) -> None:
    call = bench.call((bench.directory.client("acme"), bench.directory.key("acme-key")), max_tokens=3_000_000)
    await bench.running.admit(call)
    await bench.running.settle(call, Outcome("served", 200, Usage(), 2_500_000_000_000, attempted=True))
    (one,) = await budget("show", "client:acme", "--json")
    assert (one["limit_usd"], one["used_usd"], one["left_usd"], one["hard"]) == ("10.00", "2.50", "7.50", True)
    assert "7.50" in await budget("show")
    assert await budget("show", "org:org", "--json") == []
    assert await budget("show", "org:org") == "Nothing yet.\n"


async def test_a_top_up_holds_from_the_next_call_on_and_stays_in_the_history(
    bench: Any, budget: Any, rows: Any
) -> None:
    person = bench.directory.client("acme"), bench.directory.key("acme-key")
    with pytest.raises(Exception, match="the budget of client acme"):
        await bench.running.admit(bench.call(person, max_tokens=12_000_000))
    assert "2.50 USD more for 2025-06" in await budget("top-up", "client:acme", "2.50", "-m", "a big week")
    await bench.running.admit(bench.call(person, max_tokens=12_000_000))
    (row,) = await budget("history", "--json")
    assert (row["action"], row["amount_usd"], row["reason"]) == ("top_up", "2.50", "a big week")
    assert row["actor"]
    assert "a big week" in await budget("history", "client:acme")
    assert await rows.load() == bench.adjustments.all()
    assert bench.events.recent[-1].name == "budget_changed"


async def test_overrides_are_kept_over_a_restart_and_can_be_taken_back(bench: Any, budget: Any, rows: Any) -> None:
    await budget("override", "client:acme", "99", "--until", "6h", "-m", "launch")
    await budget("override", "key:acme-key", "none", "--span", "day", "-m", "trusted")
    assert [one["limit_usd"] for one in await budget("show", "--json")] == ["99.00"]
    bench.adjustments = Adjustments(await rows.load())
    again = bench.policy("budget")
    assert [one.limit_pusd for one in await again.status()] == [99 * USD]
    bench.adjustments.replace([])
    assert "the configured figure a month" in await budget("override", "client:acme", "configured", "-m", "over")
    assert [one["limit_usd"] for one in await budget("show", "--json")] == ["10.00"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("top-up", "client:nobody", "5", "-m", "x"), "there is no client 'nobody'"),
        (("top-up", "acme", "5", "-m", "x"), "client:acme"),
        (("top-up", "client:acme", "five", "-m", "x"), "not an amount in dollars"),
        (("top-up", "client:acme", "0", "-m", "x"), "changes nothing"),
        (("top-up", "client:acme", "99999999", "-m", "x"), "more than a budget can be changed by"),
        (("top-up", "client:acme", "5", "-m", " "), "needs a reason"),
        (("top-up", "client:acme", "5", "-m", "x", "--span", "week"), "a day or a month"),
        (("top-up", "client:acme", "5", "-m", "x", "--period", "2025-13"), "'2025-13' is not a month such as 2025-06"),
        (("top-up", "client:acme", "5", "-m", "x", "--period", "2025-7"), "'2025-7' is not a month such as 2025-06"),
        (("top-up", "client:acme", "5", "-m", "x", "--period", "2025-06-20"), "for one day: --span day"),
        (("top-up", "client:acme", "5", "-m", "x", "--span", "day", "--period", "2025-06"), "is not a day such as"),
        (("top-up", "client:acme", "5", "-m", "x", "--period", "2025-05"), "2025-05 is over"),
        (("show", "key:nobody"), "there is no key 'nobody'"),
        (("override", "client:acme", "5", "-m", "x", "--until", "2001-01-01"), "in the past"),
        (("override", "client:acme", "5", "-m", "x", "--until", "soon"), "is not a time"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    bench: Any, budget: Any, arguments: tuple[str, ...], says: str
) -> None:
    assert says in " ".join((await budget(*arguments, fails=True)).split())
    assert bench.adjustments.all() == []


async def test_a_top_up_may_be_for_a_time_to_come(bench: Any, budget: Any) -> None:
    said = await budget("top-up", "client:acme", "5", "-m", "sale", "--period", "2025-07")
    assert said == "client acme: 5.00 USD more for 2025-07.\n"
    assert "2025-07-04" in await budget(
        "top-up", "client:acme", "5", "-m", "x", "--span", "day", "--period", "2025-07-04"
    )
    assert [one["limit_usd"] for one in await budget("show", "--json")] == ["10.00"]
    await budget("top-up", "client:acme", "5", "-m", "now", "--period", "2025-06")
    assert [one["limit_usd"] for one in await budget("show", "--json")] == ["15.00"]


async def test_without_a_gateway_the_command_says_so(tmp_path: Path) -> None:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["show", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "no gateway runs" in result.output


async def test_a_change_that_is_not_saved_does_not_hold(bench: Any) -> None:
    async def full(_one: object) -> None:
        raise OSError("disk full")

    bench.person("acme")
    desk = BudgetDesk(bench.adjustments, full, list, bench.directory, bench.events, bench.clock, "UTC")
    with pytest.raises(OSError, match="disk full"):
        await desk.top_up("client", "acme", "month", "5", "why")
    assert bench.adjustments.all() == []
