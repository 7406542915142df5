"""What is measured: the kinds of load, how wide, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field

from loadtests.bench.requests import LARGE, SMALL

WIDTHS = (1, 8, 32, 128)  # requests at once
STREAMS = 32  # streams at once
PACE_S = 0.005  # between two chunks of a paced stream


@dataclass(frozen=True)
class Case:
    """One kind of load at one concurrency. `spread_us` sets the streams' beginnings apart (see `paced`)."""

    name: str
    model: str
    width: int
    size: int = SMALL
    spread_us: int = 0
    headline: bool = False  # goes into build/bench.json, and is measured longer

    @property
    def begun_s(self) -> float:
        """Until all have begun."""
        return self.width * self.spread_us / 1e6

    @property
    def streams(self) -> bool:
        return self.model != "bench-plain"


def _plain(label: str, size: int) -> list[Case]:
    return [
        Case(f"{label} c={width}", "bench-plain", width, size, headline=size == SMALL and width == 32)
        for width in WIDTHS
    ]


def paced(chunks: int, width: int) -> Case:
    """Paced streams that neither begin together nor have their chunks in one moment.

    They begin a `width`th of a stream's length apart, and a `width`th of the pace more: so beginnings are spread over
    the whole length, and the chunks of all over the pace.
    """
    apart_s = chunks * PACE_S / width + PACE_S / width
    return Case("paced", f"bench-paced-{chunks}", width, spread_us=round(apart_s * 1e6), headline=True)


SMALL_32 = Case("1.2 KB c=32", "bench-plain", 32, headline=True)
PACED = paced(200, STREAMS)
BURST = Case("burst", "bench-burst-1000", STREAMS, headline=True)
ALL = (*_plain("1.2 KB", SMALL), *_plain("38 KB", LARGE), PACED, BURST)


@dataclass(frozen=True)
class Plan:
    """How long a run measures. A window is what counts; the warm-up before it is load that is not counted."""

    rounds: int = 3
    warm_s: float = 0.4
    window_s: float = 0.6
    headline_s: float = 1.5
    starts: int = 3  # cold starts timed
    soak_requests: int = 100_000
    clients: tuple[int, int] = (10, 10_000)
    client_rounds: int = 4
    retries: int = 0  # of a headline sample that was disturbed
    cases: tuple[Case, ...] = field(default=ALL)

    def window(self, case: Case) -> float:
        return self.headline_s if case.headline else self.window_s


SHORT = Plan(retries=1)
LONG = Plan(
    rounds=7, warm_s=1.0, window_s=3.0, headline_s=5.0, starts=7, soak_requests=1_000_000, client_rounds=9, retries=2
)

# Whether the harness works, not how fast anything is: streams short enough that each connection has a second one.
_TINY_STREAMS = (paced(20, 4), Case("burst", "bench-burst-100", 4))
TINY = Plan(1, 0.1, 0.2, 0.3, 1, 2_000, (2, 20), 1, cases=(SMALL_32, *_TINY_STREAMS))
