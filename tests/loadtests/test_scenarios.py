"""The overload scenario in short: what holds on any machine, however busy it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from loadtests.scenarios import __main__ as command
from loadtests.scenarios.bed import SLOTS, bed
from loadtests.scenarios.limits import Limit
from loadtests.scenarios.load import Done, percentile
from loadtests.scenarios.overload import Overload, Times


async def test_overload_in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.scenarios.overload.WARM_S", 0.5)
    for overload_s in (1.5, 6, 20):  # longer where the machine is too busy to make more calls than are served
        async with bed() as under:
            scenario = Overload(under, Times(unloaded=0.5, overload=overload_s, recovery=0.5, goodput=0))
            limits = {limit.what: limit for limit in await scenario.run()}
        statuses, served = (scenario.figures["overload"][name] for name in ("statuses", "served_by_kind"))
        if statuses.get("429") and served.get("high"):
            break
    most = limits["most calls at the provider at once"]
    assert most.passed, str(most)
    provider = scenario.figures["provider"]
    assert (provider["max_in_flight"], provider["over_admissions"]) == (SLOTS, 0)
    assert served["high"] > 0
    assert statuses["429"] > 0


def test_limits_are_judged_and_the_exit_code_is_honest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> tuple[list[Limit], dict[str, Any]]:
        return [Limit("one", 1, 2), Limit("two", value, 1, at_least=True)], {}

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command, "ROOT", tmp_path)
    value = 1.0
    assert command.main() == 0
    value = 0.9
    assert command.main() == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("scenarios: 1 of 2 limits held")
    result = json.loads((tmp_path / "build" / "scenarios.json").read_text())
    assert [row["passed"] for row in result["overload"]["limits"]] == [True, False]
    assert result["machine"]["cores"] == os.cpu_count()


def test_what_counts_as_early() -> None:
    assert Done("normal", 0, 0.1, 429, {}).early
    assert not Done("normal", 0, 2.0, 429, {"x-tidegate-wait-ms": "1900"}).early
    assert not Done("normal", 0, 0.1, 200, {}).early
    assert percentile([], 99) == float("inf")
    assert percentile([3, 1, 2], 100) == 3
