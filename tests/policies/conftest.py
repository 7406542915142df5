"""A gate without a network: policies under a real pipeline and store, calls made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.call import Call
from gateway.clients import BudgetRules, Client, Key, QuotaRules, Tier
from gateway.clock import ManualClock
from gateway.directory import Directory, KeyEntry
from gateway.events import Events
from gateway.metrics import Metrics
from gateway.periods import Adjustments
from gateway.pipeline import Pipeline
from gateway.policy import Policy, build
from gateway.pools import Pools, PoolUse
from gateway.prices import Prices
from gateway.routes import TABLE
from gateway.scheduler import Scheduler
from gateway.state.memory import MemoryStore
from gateway.targets import Target
from gateway.upstream.base import Timeouts
from gateway.usage import Usage


class FixedQuote:
    """So many pico-dollars a token."""

    def __init__(self, pusd: int = 1_000_000, unpriced: bool = False) -> None:
        self.pusd, self.unpriced, self.version = pusd, unpriced, "test/1"

    def cost(self, usage: Usage) -> int:
        return usage.tokens * self.pusd

    def worst(self, prompt_bytes: int, output_tokens: int, units: Mapping[str, int]) -> int:
        return (prompt_bytes + output_tokens) * self.pusd


class FixedKind:
    """Counts four bytes a token."""

    name = "openai"

    def count_input(self, call: Call) -> int:
        return call.facts.prompt_bytes // 4


class FixedProvider:
    kind = FixedKind()
    max_concurrent = 1000

    def __init__(self, name: str = "provider", total_s: float = 600.0, stated: Iterable[str] = ()) -> None:
        self.name = name
        self.timeouts = Timeouts(total_s=total_s)
        self.stated_pools = frozenset(stated)

    @property
    def slots(self) -> str:
        return f"queue provider {self.name}"


def make_target(
    model: str = "small",
    pusd: int = 1_000_000,
    unpriced: bool = False,
    pools: PoolUse | None = None,
    provider: FixedProvider | None = None,
) -> Target:
    quote = FixedQuote(pusd, unpriced)
    return Target(provider or FixedProvider(), model, model, quote, pools=pools)  # type: ignore[arg-type]  # stand-ins


@dataclass
class Bench:
    """A gate, and what it takes to send calls through policies."""

    clock: ManualClock = field(default_factory=ManualClock)
    metrics: Metrics = field(default_factory=Metrics)
    prices: Any = field(default_factory=Prices)
    orgs: dict[str, BudgetRules] = field(default_factory=dict)
    adjustments: Adjustments = field(default_factory=Adjustments)
    time_zone: str = "UTC"
    count: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.scheduler = Scheduler(self.store, self.clock)
        self.events = Events(self.clock)
        self.directory = Directory(b"pepper", self.clock)
        self.pools = Pools({}, self.clock)

    def policy(self, name: str, **settings: Any) -> Policy:
        policy = build(name, settings)
        policy.provide(self)  # type: ignore[arg-type]  # a stand-in
        return policy

    def pipeline(self, *policies: Policy) -> Pipeline:
        return Pipeline(policies, self.store, self.metrics, self.scheduler)

    def person(
        self,
        name: str = "acme",
        *,
        org: str = "org",
        tier: Tier | None = None,
        quota: QuotaRules | None = None,
        budget: BudgetRules | None = None,
        key_quota: QuotaRules | None = None,
        key_budget: BudgetRules | None = None,
    ) -> tuple[Client, Key]:
        client = Client(
            name,
            org,
            tier or Tier("basic", concurrent=1000),
            quota=quota or QuotaRules(),
            budget=budget or BudgetRules(),
        )
        key = Key(f"{name}-key", name, "client", quota=key_quota or QuotaRules(), budget=key_budget or BudgetRules())
        clients = [*(one for one in self.directory.clients() if one.id != name), client]
        keys = [*(one for one in self.directory.keys() if one.id != key.id), key]  # noqa: SIM118 (no dict)
        self.directory.replace(clients, [KeyEntry(one, one.id.encode()) for one in keys])
        return client, key

    def call(
        self,
        person: tuple[Client, Key],
        *targets: Target,
        route: str = "chat",
        prompt_bytes: int = 0,
        max_tokens: int = 0,
    ) -> Call:
        self.count += 1
        found = next(one for one in TABLE if one.name == route)
        call = Call(
            id=f"call-{self.count}", route=found, dialect=found.dialect, method="POST", path=b"/", query=b"",
            raw_headers=[], started_ns=self.clock.now_ns(), started_wall_ns=self.clock.wall_ns(),
        )  # fmt: skip
        call.client, call.key = person
        call.targets = list(targets) or [make_target()]
        call.facts.model = call.targets[0].model
        call.facts.prompt_bytes, call.facts.max_tokens = prompt_bytes, max_tokens
        return call


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def provider() -> Any:
    return FixedProvider


@pytest.fixture
def target() -> Any:
    return make_target
