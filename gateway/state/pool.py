"""A pool: token buckets for everybody, for urgent calls and for named clients, from which a call takes together.

Amounts are exact: every part counts in the same scale (`plan.SCALE`), so an amount may be made up of fractions of units
of several parts. Each part keeps the refunds and debts of a token bucket (see `bucket.py`) for itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.state.bucket import BucketState
from gateway.state.plan import SCALE, Part, Plan
from gateway.state.store import Bucket, PartLevel


class PartState:
    """One bucket; `held` calls of its owner have something of it, others have `lent` (scaled)."""

    __slots__ = ("asked", "bucket", "held", "lent", "part")

    def __init__(self, part: Part, now: int) -> None:
        self.part = part
        self.bucket = BucketState(_bucket(part), now)
        self.held = 0
        self.lent = 0
        self.asked: int | None = None  # when its owner last came or left

    @property
    def level(self) -> int:
        """What is there, scaled; below zero: a debt. As of the bucket's last `advance`."""
        return self.bucket.full - self.bucket.room

    def lends(self, now: int, idle_ns: int) -> bool:
        """Its owner holds nothing and did not ask for anything lately."""
        return not self.held and (self.asked is None or now - self.asked >= idle_ns)

    def owe(self, scaled: int, now: int) -> None:
        """Charges what was not reserved."""
        self.bucket.settle(self.bucket.take(0, now), 0, scaled, now)  # type: ignore[arg-type]  # nothing is granted


class PoolState:
    """One pool. Views know by `version` when its parts are others than they were."""

    __slots__ = ("parts", "paused_until", "plan", "version")

    def __init__(self, plan: Plan, now: int) -> None:
        self.plan = plan
        self.version = 0
        self.parts = {part.name: PartState(part, now) for part in plan.parts}
        self.paused_until = 0

    def advance(self, now: int) -> None:
        """Refills all parts up to now."""
        for state in self.parts.values():
            state.bucket.advance(now)

    def adopt(self, plan: Plan, now: int) -> None:
        """The parts of a newer plan. What parts lose that shrink or end goes to those that have room for it, so nothing
        is made by dividing anew; a pool that is as good as new is full under its new figures."""
        if plan.version < self.plan.version or plan is self.plan:
            return
        before, self.plan = self.plan, plan
        if plan.parts == before.parts:
            return
        self.version += 1
        as_new = all(state.bucket.idle(now) for state in self.parts.values())
        old, self.parts = self.parts, {}
        over = 0
        for part in plan.parts:
            state = old.pop(part.name, None)
            over += 0 if state is None else _resize(state, part, now)
            self.parts[part.name] = _empty(part, now) if state is None else state
        if as_new:
            over, old = plan.capacity * SCALE, {}
        for state in old.values():
            state.bucket.advance(now)
            over += state.level
        self._gain(over, now)

    def _gain(self, scaled: int, now: int) -> None:
        first = self.parts[self.plan.parts[0].name]
        if scaled < 0:
            first.owe(-scaled, now)
        for state in self.parts.values():
            if scaled > 0:
                scaled = state.bucket.gain(scaled)

    def lower(self, most: int, now: int) -> None:
        """So that at most this is left in all (scaled)."""
        self.advance(now)
        over = sum(max(0, state.level) for state in self.parts.values()) - max(0, most)
        for part in self.plan.parts:
            state = self.parts[part.name]
            share = min(over, state.level)
            if share > 0:
                state.owe(share, now)
                over -= share
        if most < 0:
            self.parts[self.plan.parts[0].name].owe(-most, now)

    def learn(self, remaining: int | None, pause_ns: int, age_ns: int, now: int) -> None:
        """See `Store.learn`."""
        self.paused_until = max(self.paused_until, now + pause_ns)
        if remaining is not None:
            self.lower(remaining * SCALE + age_ns * sum(part.refill for part in self.plan.parts), now)

    def restate(self, used: Iterable[tuple[int, int]], now: int) -> None:
        """At most what is left after these (age in ns, amount), had the pool been full before."""
        full = self.plan.capacity * SCALE
        rate = sum(part.refill for part in self.plan.parts)
        level, at = full, None
        for age, amount in sorted(used, reverse=True):
            if at is not None:
                level = min(full, level + (at - age) * rate)
            level, at = level - amount * SCALE, age
        if at is not None:
            self.lower(min(full, level + at * rate), now)

    def levels(self, now: int) -> list[PartLevel]:
        """For people."""
        self.advance(now)
        return [
            PartLevel(
                part.name,
                max(0, self.parts[part.name].level) // SCALE,
                part.capacity,
                -(-self.parts[part.name].lent // SCALE),
                max(0, -(self.parts[part.name].level // SCALE)),
                max(0, self.paused_until - now),
            )
            for part in self.plan.parts
        ]


def _bucket(part: Part) -> Bucket:
    return Bucket(part.name, part.capacity * SCALE, "", part.refill, 1)


def _empty(part: Part, now: int) -> PartState:
    state = PartState(part, now)
    state.owe(part.capacity * SCALE, now)
    return state


def _resize(state: PartState, part: Part, now: int) -> int:
    """Gives what it had above its new capacity."""
    state.bucket.advance(now)
    over = max(0, state.level - part.capacity * SCALE)
    state.bucket.resize(_bucket(part))
    state.part = part
    return over
