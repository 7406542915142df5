"""What calls take of pools: by model, worker, route and their own word; who gets which part; what settles it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.call import Outcome
from gateway.clients import Tier
from gateway.config import PoolSettings
from gateway.errors import BadRequest, RateLimited
from gateway.pools import Pools
from gateway.providers.vocabulary import Vocabulary
from gateway.records.rows import AttemptRow
from gateway.routing.told import Told
from gateway.state.store import Used
from gateway.usage import Usage

NS = 1_000_000_000
PREMIUM = Tier("premium", priority=30, concurrent=1000)
URGENT = {b"x-tidegate-priority": b"urgent"}
TOKENS = {"unit": "tokens", "capacity": 1000, "refill_per_s": 10, "reserved_percent": 10, "lend_idle": False}
EMAILS = {"unit": "emails", "capacity": 10, "refill_per_s": 1, "reserved_percent": 0}


class Gate:
    """Pools over the bench, and calls through them."""

    def __init__(self, bench: Any, target: Callable[..., Any], provider: Callable[..., Any]) -> None:
        self.bench, self._target, self.provider = bench, target, provider
        self.names = ["pool", "queue"]

    def open(self, settings: dict[str, dict[str, Any]], **policy: Any) -> None:
        pools = {name: PoolSettings.model_validate(one) for name, one in settings.items()}
        self.bench.pools = Pools(pools, self.bench.clock, self.bench.pools.runs)
        self.policies = [self.bench.policy(name, **(policy if name == "pool" else {})) for name in self.names]
        self.pipeline = self.bench.pipeline(*self.policies)

    def target(self, model: str = "small", provider: Any = None, **amounts: Any) -> Any:
        return self._target(model, pools=self.bench.pools.use(model, amounts), provider=provider)

    def call(self, *targets: Any, name: str = "acme", headers: dict[bytes, bytes] | None = None, **more: Any) -> Any:
        call = self.bench.call(self.bench.person(name, tier=PREMIUM), *targets, **more)
        call.headers = headers or {}
        call.pipeline = self.pipeline
        return call

    async def admit(self, *targets: Any, **more: Any) -> Any:
        call = self.call(*targets, **more)
        await self.pipeline.admit(call)
        return call

    async def end(self, call: Any, usage: Usage | None = None, kind: Any = "served", **more: Any) -> None:
        target = call.targets[0]
        if not call.attempts:
            self.attempt(call, target)
        outcome = Outcome(kind, 200, usage or Usage(), complete=True, target=target, attempted=True, **more)
        await self.pipeline.settle(call, outcome)

    def attempt(self, call: Any, target: Any, status: int = 200, run_s: float = 1.0) -> AttemptRow:
        row = AttemptRow(
            id=f"{call.id}.{len(call.attempts) + 1}", call_id=call.id, n=len(call.attempts) + 1, org="o", client="c",
            key="k", route="chat", provider=target.provider.name, model=target.model,
            upstream_model=target.upstream_model, started_wall_ns=0, worst_pusd=0, worst_tokens=0,
        )  # fmt: skip
        row.status, row.duration_us = status, round(run_s * 1e6)
        call.attempts.append(row)
        return row

    async def left(self, name: str, part: str = "shared") -> int:
        """Of a part; below zero what it owes."""
        parts = await self.bench.store.parts(self.bench.pools.by_name[name].whole)
        return next(level.available - level.debt for level in parts if level.name == part)


@pytest.fixture
def gate(bench: Any, target: Callable[..., Any], provider: Callable[..., Any]) -> Gate:
    return Gate(bench, target, provider)


# -- by model: estimated, settled


async def test_tokens_are_reserved_at_worst_and_settled_to_what_was_used(gate: Gate) -> None:
    gate.open({"gpt": TOKENS})
    call = await gate.admit(gate.target(gpt="tokens"), prompt_bytes=100, max_tokens=300)
    assert await gate.left("gpt") == 500
    await gate.end(call, Usage(input_tokens=25, output_tokens=40))
    assert await gate.left("gpt") == 835
    call = await gate.admit(gate.target(gpt="tokens"), prompt_bytes=100, max_tokens=300)
    await gate.end(call, Usage(input_tokens=900, output_tokens=40))
    assert await gate.left("gpt") == -105


async def test_input_is_counted_exactly_before_a_call_waits_for_more_than_it_can_take(gate: Gate) -> None:
    gate.open({"gpt": TOKENS})
    await gate.admit(gate.target(gpt="tokens"), prompt_bytes=100, max_tokens=300)
    async with asyncio.timeout(30):  # at one token a byte, 200 would be lacking, and no time passes here
        call = await gate.admit(gate.target(gpt="tokens"), prompt_bytes=600, max_tokens=100)
    assert call.facts.input_tokens == 150
    assert await gate.left("gpt") == 250


async def test_a_call_that_lacks_something_else_is_not_counted(gate: Gate) -> None:
    gate.open({"gpt": TOKENS, "mail": EMAILS})
    await gate.admit(gate.target(mail=10))
    call = gate.call(gate.target(gpt="tokens", mail=1), prompt_bytes=600, max_tokens=100)
    waiting = asyncio.ensure_future(gate.pipeline.admit(call))
    while call.queued is None:
        await asyncio.sleep(0)
    assert call.facts.input_tokens is None
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting


async def test_what_counts_exactly_is_loaded_in_a_thread(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes most of a second, in which all other calls would stand still."""
    threads: list[threading.Thread] = []

    class Fresh(Vocabulary):
        def load(self) -> Callable[[str], list[int]]:
            threads.append(threading.current_thread())
            return lambda text: []

    monkeypatch.setattr("gateway.reservations.VOCABULARY", Fresh())
    gate.open({"gpt": TOKENS})
    call = await gate.admit(gate.target(gpt="tokens"), prompt_bytes=1600, max_tokens=100)
    assert call.facts.input_tokens == 400
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize(
    ("amount", "taken", "used"),
    [("input_tokens", 100, 25), ("output_tokens", 300, 40), ("requests", 1, 1), (7, 7, 7), ("bytes", 100, 100)],
)
async def test_each_measure_counts_what_it_says(gate: Gate, amount: int | str, taken: int, used: int) -> None:
    gate.open({"gpt": {**TOKENS, "reserved_percent": 0}})
    call = await gate.admit(gate.target(gpt=amount), prompt_bytes=100, max_tokens=300)
    assert await gate.left("gpt") == 1000 - taken
    await gate.end(call, Usage(input_tokens=25, output_tokens=40))
    assert await gate.left("gpt") == 1000 - used


async def test_a_call_takes_of_all_its_pools_or_of_none(gate: Gate) -> None:
    gate.open({"gpt": TOKENS, "email": EMAILS})
    both = gate.target(gpt="tokens", email=8)
    first = await gate.admit(both, max_tokens=100)
    second = gate.call(both, max_tokens=100)
    task = asyncio.ensure_future(gate.pipeline.admit(second))
    await asyncio.sleep(0)
    assert (await gate.left("gpt"), await gate.left("email")) == (800, 2)
    await gate.end(first, Usage(units={"emails": 2}))
    await task
    assert (await gate.left("gpt"), await gate.left("email")) == (800, 0)


async def test_calls_without_pools_take_nothing(gate: Gate) -> None:
    gate.open({"gpt": TOKENS})
    call = gate.call(gate.target())
    gate.policies[0].apply(call)
    assert call.needs == []
    assert gate.target().pools is None


async def test_a_cached_answer_takes_nothing_of_a_pool(gate: Gate) -> None:
    gate.open({"gpt": TOKENS})
    call = gate.call(gate.target(gpt="tokens"), max_tokens=300)
    gate.policies[0].apply(call)
    assert not any(need.even_if_cached for need in call.needs)


async def test_what_was_never_sent_is_given_back(gate: Gate) -> None:
    from gateway.errors import Unavailable

    gate.open({"email": EMAILS})
    call = await gate.admit(gate.target(email=4))
    gate.attempt(call, call.targets[0], status=0)
    await gate.end(call, kind="failed", error=Unavailable("can't be reached"))
    assert await gate.left("email") == 10
    call = await gate.admit(gate.target(email=4))
    gate.attempt(call, call.targets[0], status=500)
    await gate.end(call, kind="failed")
    assert await gate.left("email") == 6


async def test_a_route_takes_of_a_pool_whatever_its_model(gate: Gate) -> None:
    gate.open({"gpt": TOKENS, "email": EMAILS}, routes={"chat": {"email": 2, "gpt": "tokens"}})
    await gate.admit(gate.target(gpt=5), max_tokens=100)
    assert (await gate.left("gpt"), await gate.left("email")) == (895, 8)
    await gate.admit(gate.target(), max_tokens=50)
    assert (await gate.left("gpt"), await gate.left("email")) == (845, 6)
    await gate.admit(gate.target(), route="embeddings", max_tokens=50)
    assert await gate.left("gpt") == 845


# -- who gets which part


async def test_an_urgent_call_takes_of_the_reserved_part(gate: Gate) -> None:
    gate.open({"gpt": TOKENS})
    await gate.admit(gate.target(gpt="tokens"), max_tokens=900)
    await gate.admit(gate.target(gpt="tokens"), max_tokens=100, headers=URGENT)
    assert (await gate.left("gpt"), await gate.left("gpt", "reserved")) == (0, 0)
    assert await waits(gate, gate.target(gpt="tokens"), max_tokens=1, headers=URGENT)


async def test_a_claim_that_the_tier_does_not_allow_is_not_urgent(gate: Gate) -> None:
    gate.open({"gpt": TOKENS})
    call = gate.call(gate.target(gpt="tokens"), max_tokens=100, headers=URGENT)
    call.client = gate.bench.person("acme", tier=Tier("basic", concurrent=100))[0]
    await gate.pipeline.admit(call)
    assert (await gate.left("gpt"), await gate.left("gpt", "reserved")) == (800, 100)


async def test_a_dedicated_part_is_its_clients_while_it_is_valid(gate: Gate) -> None:
    own = {"client": "acme", "capacity": 200, "refill_per_s": 2}
    spans = {"from": datetime(2026, 1, 1, tzinfo=UTC), "until": datetime(2027, 1, 1, tzinfo=UTC)}
    clock = gate.bench.clock
    new_year = int(spans["until"].timestamp())
    clock.jump_wall(new_year - 1 - clock.wall_ns() // NS)
    gate.open({"gpt": {**TOKENS, "dedicated": ({**own, **spans},)}})
    assert await gate.left("gpt") == 700
    await gate.admit(gate.target(gpt="tokens"), max_tokens=50)
    assert (await gate.left("gpt"), await gate.left("gpt", "client acme")) == (700, 150)
    await gate.admit(gate.target(gpt="tokens"), max_tokens=50, name="other")
    assert (await gate.left("gpt"), await gate.left("gpt", "client acme")) == (650, 150)
    clock.jump_wall(2)
    await gate.admit(gate.target(gpt="tokens"), max_tokens=50)
    assert await gate.left("gpt") == 750  # 650, and the 150 that were left of acme's


def test_a_date_until_holds_to_the_end_of_its_day() -> None:
    from datetime import date

    own = {"client": "a", "capacity": 1, "refill_per_s": 0, "from": date(2026, 1, 1), "until": date(2026, 12, 31)}
    (part,) = PoolSettings.model_validate({**TOKENS, "dedicated": (own,)}).dedicated
    assert part.span_wall_ns[1] == int(datetime(2027, 1, 1, tzinfo=UTC).timestamp()) * NS


async def test_idle_parts_are_lent_to_short_work_only(gate: Gate) -> None:
    gate.open({"gpt": {**TOKENS, "lend_idle": True, "lend_s": 30, "idle_s": 10}})
    short, long = gate.provider("short", total_s=30), gate.provider("long", total_s=31)
    held = await gate.admit(gate.target("long", long, gpt="tokens"), max_tokens=900)
    assert await waits(gate, gate.target("long", long, gpt="tokens"), max_tokens=50)
    call = await gate.admit(gate.target("short", short, gpt="tokens"), max_tokens=50)
    assert await gate.left("gpt", "reserved") == 50
    await gate.admit(gate.target("short", short, gpt="tokens"), max_tokens=10, headers=URGENT)
    assert await waits(gate, gate.target("short", short, gpt="tokens"), max_tokens=20)  # its owner came
    await gate.end(call)
    await gate.end(held)


async def test_work_is_short_when_it_was_so_lately(gate: Gate) -> None:
    gate.open({"gpt": {**TOKENS, "lend_idle": True}})
    model = gate.target(gpt=1)
    for _ in range(20):
        call = await gate.admit(model)
        gate.attempt(call, model, run_s=29)
        await gate.end(call)
    await gate.admit(model)
    gate.bench.clock.advance(60)
    assert gate.policies[0]._view(gate.bench.pools.by_name["gpt"], gate.call(model), model).borrows == ("reserved",)
    call = await gate.admit(model)
    gate.attempt(call, model, run_s=31)
    await gate.end(call)
    assert gate.policies[0]._view(gate.bench.pools.by_name["gpt"], gate.call(model), model).borrows == ()


async def waits(gate: Gate, *targets: Any, **more: Any) -> bool:
    """Whether it is not granted at once."""
    call = gate.call(*targets, **more)
    task = asyncio.ensure_future(gate.pipeline.admit(call))
    for _ in range(10):
        await asyncio.sleep(0)
    admitted = task.done() and task.exception() is None
    task.cancel()
    with suppress(asyncio.CancelledError, RateLimited):
        await task
    await gate.pipeline.settle(call, Outcome("gone", 499, Usage()))
    return not admitted


# -- stated by the caller


async def test_a_worker_call_states_its_needs_and_the_report_settles_them(gate: Gate) -> None:
    gate.open({"email": EMAILS, "sms": {**EMAILS, "unit": "messages"}})
    worker = gate.provider("worker", stated=["email", "sms"])
    headers = {b"x-tidegate-needs": b"email=3, sms = 2"}
    call = await gate.admit(gate.target("worker", worker, email=1), route="worker", headers=headers)
    assert (await gate.left("email"), await gate.left("sms")) == (6, 8)
    await gate.end(call, Usage(units={"requests": 1, "emails": 1}))
    assert (await gate.left("email"), await gate.left("sms")) == (8, 8)


@pytest.mark.parametrize(
    "header",
    [b"gpt=1", b"email", b"email=", b"email=0", b"email=-1", b"email=x", b"email=1,email=2", b"email=1;sms=2", b"=3",
     b"email=9999999999999", b"email=\xb2", b"", b"email=1," * 9, b"email=1, " + b"x" * 600],
)  # fmt: skip
async def test_needs_that_are_not_allowed_or_not_readable_are_a_400(gate: Gate, header: bytes) -> None:
    gate.open({"email": EMAILS, "gpt": TOKENS})
    worker = gate.provider("worker", stated=["email"])
    with pytest.raises(BadRequest, match=r"x-tidegate-needs|may state email"):
        await gate.admit(gate.target("worker", worker), route="worker", headers={b"x-tidegate-needs": header})


async def test_models_take_no_stated_needs(gate: Gate) -> None:
    gate.open({"gpt": TOKENS})
    with pytest.raises(BadRequest, match="may state none here"):
        await gate.admit(gate.target(gpt="tokens"), headers={b"x-tidegate-needs": b"gpt=1"})


# -- windows


async def test_a_window_over_a_pool_bounds_all_its_parts_together(gate: Gate) -> None:
    gate.open({"gpt": {**TOKENS, "windows": ("500/day",)}})
    call = await gate.admit(gate.target(gpt="tokens"), max_tokens=300)
    assert await waits(gate, gate.target(gpt="tokens"), max_tokens=201, headers=URGENT)
    await gate.end(call, Usage(output_tokens=100))
    assert not await waits(gate, gate.target(gpt="tokens"), max_tokens=400)
    with pytest.raises(RateLimited, match="500/day tokens of pool gpt"):
        await gate.admit(gate.target(gpt="tokens"), max_tokens=501)


# -- failover


async def test_failover_moves_a_call_to_the_pool_of_its_next_target(gate: Gate) -> None:
    gate.open({"one": TOKENS, "two": TOKENS})
    first = gate.target("m", gate.provider("a"), one="tokens")
    second = gate.target("m", gate.provider("b"), two="requests")
    call = await gate.admit(first, second, max_tokens=300)
    assert (await gate.left("one"), await gate.left("two")) == (600, 900)
    gate.attempt(call, first, status=429)
    assert await gate.pipeline.move(call, second, keep=False)
    assert (await gate.left("one"), await gate.left("two")) == (900, 899)
    gate.attempt(call, second)
    call.targets = [second, first]
    await gate.end(call, Usage(output_tokens=200))
    assert (await gate.left("one"), await gate.left("two")) == (900, 899)


async def test_an_attempt_that_may_have_been_billed_keeps_its_pool(gate: Gate) -> None:
    gate.open({"one": TOKENS, "two": TOKENS})
    first = gate.target("m", gate.provider("a"), one="tokens")
    second = gate.target("m", gate.provider("b"), two="tokens")
    call = await gate.admit(first, second, max_tokens=300)
    gate.attempt(call, first, status=0).output_tokens = 70
    assert await gate.pipeline.move(call, second, keep=True)
    assert (await gate.left("one"), await gate.left("two")) == (600, 600)
    gate.attempt(call, second)
    outcome = Outcome("served", 200, Usage(output_tokens=200), complete=True, target=second, attempted=True)
    await gate.pipeline.settle(call, outcome)
    assert (await gate.left("one"), await gate.left("two")) == (830, 700)


async def test_a_target_whose_pool_is_empty_is_skipped(gate: Gate) -> None:
    gate.open({"one": TOKENS, "two": TOKENS})
    first = gate.target("m", gate.provider("a"), one="tokens")
    second = gate.target("m", gate.provider("b"), two="tokens")
    await gate.admit(second, max_tokens=900)
    call = await gate.admit(first, second, max_tokens=300)
    gate.attempt(call, first, status=429)
    assert not await gate.pipeline.move(call, second, keep=False)
    assert await gate.left("one") == 600


# -- what providers say


async def test_the_providers_own_figures_lower_the_pool(gate: Gate) -> None:
    gate.open({"gpt": TOKENS, "calls": {**TOKENS, "unit": "requests"}})
    model = gate.target(gpt="tokens", calls="requests")
    call = await gate.admit(model, max_tokens=500)
    await gate.pipeline.heard(call, model, Told({"tokens": 200}), gate.bench.clock.now_ns())
    assert await gate.left("gpt") == 100
    assert await gate.left("calls") == 899
    gate.bench.clock.advance(1)
    await gate.end(call, Usage(output_tokens=10))
    # It gives back 490, but 200 and what came in since is all that the provider has.
    assert await gate.left("gpt") == 110


async def test_a_429_closes_the_pool_until_the_provider_wants_calls_again(gate: Gate) -> None:
    gate.open({"gpt": TOKENS})
    model = gate.target(gpt="tokens")
    call = await gate.admit(model, max_tokens=10)
    await gate.pipeline.heard(call, model, Told({}, 20.0), gate.bench.clock.now_ns())
    await gate.end(call, kind="failed")
    assert await waits(gate, model, max_tokens=1)
    gate.bench.clock.advance(20)
    assert not await waits(gate, model, max_tokens=1)


async def test_a_429_closes_a_pool_of_anything(gate: Gate) -> None:
    gate.open({"mail": {"unit": "emails", "capacity": 100, "refill_per_s": 1}})
    model = gate.target(mail=5)
    call = await gate.admit(model)
    await gate.pipeline.heard(call, model, Told({"requests": 0}, 20.0), gate.bench.clock.now_ns())
    await gate.end(call, kind="failed")
    assert await waits(gate, model)
    gate.bench.clock.advance(20)
    assert not await waits(gate, model), "what is left of requests says nothing of emails"


async def test_a_pool_of_several_providers_learns_from_none_unless_told_to(gate: Gate) -> None:
    for learn, left in ((None, 890), (True, 0), (False, 890)):
        gate.open({f"gpt-{learn}": {**TOKENS, "learn": learn}})
        name = f"gpt-{learn}"
        one, two = (gate.target("m", gate.provider(who), **{name: "tokens"}) for who in "ab")
        gate.bench.pools.learn_by([(one.pools, "a"), (two.pools, "b")])
        call = await gate.admit(one, max_tokens=10)
        await gate.pipeline.heard(call, one, Told({"tokens": 0}), gate.bench.clock.now_ns())
        assert await gate.left(name) == left


# -- reload, restart, reading


async def test_a_reload_leaves_at_most_the_new_capacity(gate: Gate) -> None:
    gate.open({"gpt": TOKENS})
    call = await gate.admit(gate.target(gpt="tokens"), max_tokens=100)
    gate.open({"gpt": {**TOKENS, "capacity": 500}})
    await gate.bench.pools.declare(gate.bench.store)
    assert await gate.left("gpt") == 450
    await gate.end(call, Usage())
    assert await gate.left("gpt") == 450


async def test_at_start_windows_count_what_the_ledger_says(gate: Gate) -> None:
    gate.open({"gpt": {**TOKENS, "windows": ("5000/day",)}, "email": {**EMAILS, "windows": ("50/day",)}})
    gate.target("gpt-*", gpt="tokens", email=2)
    wall_ns = gate.bench.clock.wall_ns()

    class Ledger:
        async def since(self, wall_ns: int) -> list[Used]:
            return []

        async def graded(self, since_ns: int) -> list[Used]:
            assert since_ns < wall_ns - 86_400 * NS
            row = Used(wall_ns - 3600 * NS, "org", "acme", "key", "gpt-4o", 3, 700, 0, 200)
            return [row, Used(wall_ns - 3600 * NS, "org", "acme", "key", "other", 1, 9, 0, 9)]

    await gate.policies[0].rebuild(Ledger())
    (gpt, email) = await gate.bench.pools.snapshot(gate.bench.store)
    assert gpt["windows"] == [{"rate": "5000/day", "limit": 5000, "used": 900, "remaining": 4100}]
    assert email["windows"][0]["used"] == 0  # of emails the ledger knows nothing: the store's own memory counts


async def test_pools_tell_how_they_stand(gate: Gate) -> None:
    own = {"client": "acme", "capacity": 200, "refill_per_s": 2}
    gate.open({"gpt": {**TOKENS, "dedicated": (own,)}, "email": EMAILS})
    await gate.admit(gate.target(gpt="tokens"), max_tokens=150)
    (gpt, email) = await gate.bench.pools.snapshot(gate.bench.store, ["pool gpt", "pool gpt", "queue"])
    assert gpt == {
        "name": "gpt",
        "unit": "tokens",
        "closed_ms": 0,
        "waiting": 2,
        "shared": {"available": 700, "capacity": 700, "percentage": 100, "lent": 0, "debt": 0},
        "reserved": {"available": 100, "capacity": 100, "percentage": 100, "lent": 0, "debt": 0},
        "dedicated": {"acme": {"available": 50, "capacity": 200, "percentage": 25, "lent": 0, "debt": 0}},
        "windows": [],
    }
    assert email["reserved"] is None


async def test_observing_counts_on_a_pool_of_its_own(gate: Gate) -> None:
    gate.open({"gpt": TOKENS}, mode="observe")
    call = await gate.admit(gate.target(gpt="tokens"), max_tokens=2000)
    assert call.marks
    assert await gate.left("gpt") == 900
