"""How many users there are at each moment: spike, step, soak and tiers.

    locust -f loadtests/locustfile.py,loadtests/shapes.py --shape spike -u 200 -t 10m --headless --host ...

`-u` is the peak, `-t` the whole time; `--shape-rate` is how many users start or stop a second (default: the peak within
two seconds; not `-r`, whose default of 1 cannot be told from a wish).
"""

from __future__ import annotations

from typing import Any, ClassVar

from locust import LoadTestShape, events

PEAK = 50  # users
SOONEST_S = 2.0  # a change of users is over after this time


class Staged(LoadTestShape):
    """Stages, each a part of the whole time (of 1) and a part of the peak (of 1)."""

    abstract = True
    use_common_options = True
    time_s: ClassVar[float] = 300.0
    stages: ClassVar[tuple[tuple[float, float], ...]] = ()

    def users_at(self, elapsed_s: float, peak: int, total_s: float) -> int | None:
        """Users wanted; None once the time is over."""
        passed = 0.0
        for part_of_time, part_of_peak in self.stages:
            passed += part_of_time * total_s
            if elapsed_s < passed:
                return max(1, round(part_of_peak * peak))
        return None

    def tick(self) -> tuple[int, float] | None:
        """Users wanted now, and how many to start or stop a second."""
        options: Any = self.runner.environment.parsed_options if self.runner is not None else None
        peak = PEAK if options.num_users is None else options.num_users
        total_s = self.time_s if options.run_time is None else float(options.run_time)
        users = self.users_at(self.get_run_time(), peak, total_s)
        if users is None:
            return None
        return users, max(1.0, peak / SOONEST_S) if options.shape_rate is None else options.shape_rate


class Spike(Staged):
    """A tenth of the peak, suddenly all of it, and back: does normal service return?"""

    abstract = True
    stages = ((0.3, 0.1), (0.2, 1.0), (0.5, 0.1))


class Step(Staged):
    """Five equal steps up: where does it bend?"""

    abstract = True
    stages = ((0.2, 0.2), (0.2, 0.4), (0.2, 0.6), (0.2, 0.8), (0.2, 1.0))


class Soak(Staged):
    """A short rise, then two hours the same: does anything grow?"""

    abstract = True
    time_s = 7200.0
    stages = ((0.02, 0.3), (0.03, 0.6), (0.95, 1.0))


class Tiers(Staged):
    """Room for all, too little, room again; with `--tier-keys` the rows show who gets what while it is short."""

    abstract = True
    stages = ((0.25, 0.2), (0.5, 1.0), (0.25, 0.2))


SHAPES: dict[str, type[Staged]] = {"spike": Spike, "step": Step, "soak": Soak, "tiers": Tiers}


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """The choice of shape, and how fast it follows."""
    parser.add_argument(
        "--shape", choices=sorted(SHAPES), env_var="TIDEGATE_SHAPE", default="step", help="how the load goes over time"
    )
    parser.add_argument("--shape-rate", type=float, env_var="TIDEGATE_SHAPE_RATE", help="users started a second")


class Chosen(Staged):
    """The shape that `--shape` names."""

    abstract = False

    def tick(self) -> tuple[int, float] | None:
        """As the shape chosen says."""
        if self.runner is not None:
            chosen = SHAPES[self.runner.environment.parsed_options.shape]
            self.stages, self.time_s = chosen.stages, chosen.time_s  # type: ignore[misc]  # of this one instance
        return super().tick()
