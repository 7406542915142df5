"""How fast a limit lets calls through, and how honest the estimates made of it are."""

from __future__ import annotations

from collections import deque
from math import exp, log

from gateway.metrics import Metrics
from gateway.scheduler.settings import BANDS, SECOND_NS
from gateway.state.store import Limit, Slots

#: The pace is that of about so many of the last grants, within these bounds of seconds.
GRANTS = 64
SHORTEST_S, LONGEST_S = 2.0, 60.0
#: Before anything was measured, a slot is taken to be held this long, and a refill to count as so much time seen.
ASSUMED_HOLD_S = 1.0
PRIOR_S = 1.0
#: Share of each finished wait in the learned correction, and its bounds (as a natural logarithm).
LEARNING = 0.08
MOST_CORRECTION = 2.5
#: Waits below this teach nothing: the loop's own delays are of that size.
SHORTEST_LESSON_S = 0.05
#: No estimate is longer (a day), and those of the last waits are kept for the running median.
LONGEST_ESTIMATE_S = 86_400.0
KEPT_ERRORS = 1000
#: Relative errors: 5 %, 10 %, ... to ten times.
ERROR_BOUNDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)


class Pace:
    """Of one limit, while calls wait for it: units granted and arrived a second, decaying. Outlives its line."""

    __slots__ = ("_arrived", "_at", "_back", "_correction", "_count", "_time_s", "_work", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._back = limit.comes_back
        self._at = 0
        self._time_s = 0.0
        self._work = 0.0
        self._count = 0.0
        self._arrived = [0.0] * BANDS
        self._correction = [0.0] * BANDS

    def resume(self, limit: Limit, now: int) -> None:
        """Calls wait again: the time between does not count."""
        self.limit = limit
        self._back = limit.comes_back
        self._at = now

    def _decay(self, now: int) -> None:
        passed_s = (now - self._at) / SECOND_NS
        self._at = now
        if passed_s <= 0:
            return
        self._time_s += passed_s
        window_s = min(LONGEST_S, max(SHORTEST_S, GRANTS * self._time_s / (self._count + 1.0)))
        factor = exp(-passed_s / window_s)
        self._time_s *= factor
        self._work *= factor
        self._count *= factor
        self._arrived = [one * factor for one in self._arrived]

    def granted(self, amount: int, now: int) -> None:
        if now - self._at > 1_000_000:  # once a millisecond is often enough
            self._decay(now)
        self._work += amount
        self._count += 1.0

    def arrived(self, band: int, amount: int) -> None:
        self._arrived[band] += amount

    @property
    def is_measured(self) -> bool:
        """Enough was seen to refuse somebody for it."""
        return self._count >= 4.0 or self._back is not None

    def _seen_s(self, now: int) -> float:
        return self._time_s + (now - self._at) / SECOND_NS if now > self._at else self._time_s

    def _rate(self, time_s: float) -> float:
        """Units a second, after so many seconds seen."""
        back = self._back
        if back is not None:
            refill = back[0] * SECOND_NS / back[1]
            # What is refilled while a large call waits for it is not lost; refunds come besides.
            return max(refill, (self._work + PRIOR_S * refill) / (time_s + PRIOR_S))
        if self._count >= 4.0 and time_s > 0:
            return self._work / time_s
        limit = self.limit
        assumed = max(1, limit.capacity) / ASSUMED_HOLD_S if isinstance(limit, Slots) else 1.0
        return (self._work + assumed) / (time_s + 1.0)

    def naive_s(self, band: int, ahead: tuple[int, int], share: float, amount: int, now: int) -> float:
        """Seconds until the calls ahead (in higher bands, in its own) and then this one have been let through, others
        coming in above at the pace they came in so far. `share` of all grants are its band's in any case."""
        time_s = self._seen_s(now)
        rate = self._rate(time_s)
        free = rate - sum(self._arrived[band + 1 :]) / (time_s + 1.0)
        if free < rate * 0.05:
            free = rate * 0.05
        if free <= 0:
            return LONGEST_ESTIMATE_S
        above_now, within = ahead
        mean = self._work / self._count if self._count > 0.5 else amount
        wait_s = ((above_now + within) * mean + amount) / free
        if share:
            wait_s = min(wait_s, (within * mean + amount) / (rate * share))
        return wait_s if wait_s < LONGEST_ESTIMATE_S else LONGEST_ESTIMATE_S

    def corrected_s(self, band: int, naive_s: float) -> float:
        """With what earlier waits taught."""
        correction = self._correction[band]
        return min(LONGEST_ESTIMATE_S, naive_s * exp(correction)) if correction else naive_s

    def learn(self, band: int, naive_s: float, actual_s: float) -> None:
        """A call that was told (before correction) so long has waited so long."""
        if naive_s < SHORTEST_LESSON_S or actual_s < SHORTEST_LESSON_S:
            return
        lesson = log(actual_s / naive_s) - self._correction[band]
        moved = self._correction[band] + LEARNING * lesson
        self._correction[band] = min(MOST_CORRECTION, max(-MOST_CORRECTION, moved))


class Honesty:
    """The error of the estimates: of calls that waited a second or more, against the wait of the same call."""

    def __init__(self, metrics: Metrics) -> None:
        self._errors: deque[float] = deque(maxlen=KEPT_ERRORS)
        self._histogram = metrics.histogram(
            "tidegate_queue_estimate_error_ratio",
            "Error of the estimated wait, over the wait, of calls that waited 1 s or more.",
            ("level",),
            ERROR_BOUNDS,
        )
        metrics.gauge(
            "tidegate_queue_estimate_error_median_ratio",
            "Median of the error of the last 1,000 such calls.",
            lambda: [((), self.median)],
        )

    def note(self, level: str, estimate_s: float, actual_s: float) -> None:
        """One call's wait of a second or more is over."""
        error = abs(estimate_s - actual_s) / actual_s
        self._errors.append(error)
        self._histogram.observe((level,), error)

    @property
    def median(self) -> float:
        errors = sorted(self._errors)
        return errors[len(errors) // 2] if errors else 0.0
