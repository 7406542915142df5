"""One of two targets is killed for half of the time: hardly a call fails. Long form: loadtests/scenarios/killed.py."""

from __future__ import annotations

import os

from loadtests.scenarios.killed import Killed


async def test_two_targets_one_killed_for_half_of_the_time() -> None:
    scenario = Killed(seconds=float(os.environ.get("TIDEGATE_KILLED_S", "6")))
    limits = await scenario.run()
    assert all(limit.passed for limit in limits), (list(map(str, limits)), scenario.figures)
    assert scenario.figures["attempts"].get("2", 0) >= 1  # some call did meet the dead one
