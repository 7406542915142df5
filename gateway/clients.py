"""Who may call: tiers, clients and keys as admission sees them. Built from gateway.toml and the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["client", "service", "viewer", "admin"]


@dataclass(frozen=True, slots=True)
class QuotaRules:
    """Rates in the grammar of `limits` ("600/minute"). None: the policy's default; empty: no limit of that sort."""

    requests: tuple[str, ...] | None = None
    tokens: tuple[str, ...] | None = None
    concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class BudgetRules:
    """Pico-dollars a calendar day and month; None: no bound. `hard` refuses, soft only tells."""

    day_pusd: int | None = None
    month_pusd: int | None = None
    hard: bool = True


@dataclass(frozen=True, slots=True)
class Tier:
    """A template of defaults. `rate_multiplier_milli` scales quotas: 1,500 is one and a half."""

    name: str
    priority: int = 10  # points, 0..40
    concurrent: int = 5
    rate_multiplier_milli: int = 1000
    discount_percent: int = 0
    quota: QuotaRules = field(default_factory=QuotaRules)
    budget: BudgetRules = field(default_factory=BudgetRules)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a client or key may use: names or patterns with `*`; None: everything."""

    models: tuple[str, ...] | None = None
    routes: tuple[str, ...] | None = None
    workers: tuple[str, ...] | None = None

    @property
    def unbounded(self) -> bool:
        """Nothing is left out."""
        return self.models is None and self.routes is None and self.workers is None


@dataclass(frozen=True, slots=True)
class Client:
    """Belongs to one org (its own by default); has a tier, limits, a budget and a bill."""

    id: str
    org: str
    tier: Tier
    scope: Scope = field(default_factory=Scope)
    quota: QuotaRules = field(default_factory=QuotaRules)
    budget: BudgetRules = field(default_factory=BudgetRules)
    source: Literal["file", "database"] = "database"


@dataclass(frozen=True, slots=True)
class Key:
    """A credential of a client. Only its HMAC-SHA-256 is kept; `hint` is its last four characters, for people."""

    id: str
    client_id: str
    role: Role
    hint: str = ""
    scope: Scope = field(default_factory=Scope)
    quota: QuotaRules = field(default_factory=QuotaRules)
    budget: BudgetRules = field(default_factory=BudgetRules)
    expires_wall_ns: int | None = None
    source: Literal["file", "database"] = "database"
