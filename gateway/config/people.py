"""[tiers], [orgs], [clients] and their keys: who may call, and how much."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr, WithJsonSchema, model_validator

from gateway.clients import Role
from gateway.config.values import (
    Count,
    FilePath,
    Id,
    Milli,
    Names,
    Percent,
    Rates,
    Section,
    Usd,
    wrong,
)
from gateway.secret import WANTED, is_fit

if TYPE_CHECKING:
    from gateway.clients import BudgetRules, Client, QuotaRules, Scope, Tier

#: The figures of the system that was replaced; a file may override single fields of them.
BUILTIN_TIERS: dict[str, dict[str, Any]] = {
    "basic": {"priority": 10, "concurrent": 5, "budget": {"month_usd": 100}},
    "standard": {
        "priority": 20,
        "concurrent": 20,
        "budget": {"month_usd": 500},
        "rate_multiplier": Decimal("1.5"),
        "discount_percent": 5,
    },
    "premium": {
        "priority": 30,
        "concurrent": 50,
        "budget": {"month_usd": 1000},
        "rate_multiplier": 2,
        "discount_percent": 10,
    },
    "enterprise": {
        "priority": 40,
        "concurrent": 100,
        "budget": {"month_usd": 5000},
        "rate_multiplier": 3,
        "discount_percent": 20,
    },
}


class RateSettings(Section):
    """Rates such as "600/minute". None: the default of one level up; an empty list: no limit of that sort."""

    requests: Rates | None = None
    tokens: Rates | None = None

    def rules(self) -> QuotaRules:
        """As admission takes them."""
        from gateway.clients import QuotaRules

        return QuotaRules(self.requests, self.tokens)


class QuotaSettings(RateSettings):
    """Rates, and how many calls at the same time."""

    concurrent: Count | None = None

    def rules(self) -> QuotaRules:
        """As admission takes them."""
        from gateway.clients import QuotaRules

        return QuotaRules(self.requests, self.tokens, self.concurrent)


class BudgetSettings(Section):
    """US dollars a calendar day and month, kept in pico-dollars; None: no bound. Hard refuses, soft only tells."""

    day_pusd: Usd | None = Field(default=None, alias="day_usd")
    month_pusd: Usd | None = Field(default=None, alias="month_usd")
    hard: bool = True

    def rules(self) -> BudgetRules:
        """As admission takes them."""
        from gateway.clients import BudgetRules

        return BudgetRules(self.day_pusd, self.month_pusd, self.hard)


class TierSettings(Section):
    """A template of defaults for clients."""

    priority: Annotated[int, Field(ge=0, le=40)] = 10
    concurrent: Count = 5
    rate_multiplier_milli: Milli = Field(default=1000, alias="rate_multiplier")
    discount_percent: Percent = 0
    quota: RateSettings = RateSettings()
    budget: BudgetSettings = BudgetSettings()

    def tier(self, name: str) -> Tier:
        """As admission takes it."""
        from gateway.clients import Tier

        return Tier(
            name,
            self.priority,
            self.concurrent,
            self.rate_multiplier_milli,
            self.discount_percent,
            self.quota.rules(),
            self.budget.rules(),
        )


def _instant(value: Any) -> datetime:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise wrong("a date and time with its offset, such as 2027-01-01T00:00:00Z")
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise wrong("a date such as 2027-01-01 or a date and time with offset such as 2027-01-01T00:00:00Z, no quotes")


Instant = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "examples": ["2027-01-01T00:00:00Z"]})
]


class ScopedSettings(Section):
    """What a client or key may use, and how much. None: everything; a pattern may hold *."""

    models: Names | None = None
    routes: Names | None = None
    workers: Names | None = None
    quota: QuotaSettings = QuotaSettings()
    budget: BudgetSettings = BudgetSettings()

    def scope(self) -> Scope:
        """As admission takes it."""
        from gateway.clients import Scope

        return Scope(self.models, self.routes, self.workers)


class KeySettings(ScopedSettings):
    """A credential. Exactly one of `secret`, `secret_file` and `hash` (HMAC-SHA-256 under the pepper, in hex).

    `id` "" is derived from the secret by the directory. `expires` is when it stops working.
    """

    id: Id | None = None
    role: Role = "client"
    secret: SecretStr | None = None
    secret_file: FilePath | None = None
    hash: SecretStr | None = None
    expires: Instant | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> KeySettings:
        given = [name for name in ("secret", "secret_file", "hash") if getattr(self, name) is not None]
        if len(given) != 1:
            raise wrong(f"exactly one of secret, secret_file and hash; found {' and '.join(given) or 'none'}")
        if self.secret is not None and not is_fit(self.secret.get_secret_value()):
            raise wrong(WANTED, "secret")
        if self.hash is not None and not re.fullmatch(r"[0-9a-f]{64}", self.hash.get_secret_value()):
            raise wrong("64 hexadecimal digits in lower case", "hash")
        return self

    @property
    def expires_wall_ns(self) -> int | None:
        """Nanoseconds since the epoch."""
        if self.expires is None:
            return None
        since = self.expires - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


class ClientSettings(ScopedSettings):
    """Who calls. `org` None: an org of its own, named like the client."""

    org: Id | None = None
    tier: str = "basic"
    keys: tuple[KeySettings, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("keys"), list):
            return {**data, "keys": tuple(data["keys"])}
        return data

    def client(self, id: str, tiers: Mapping[str, Tier]) -> Client:
        """As admission takes it; `tiers` are those of the same settings."""
        from gateway.clients import Client

        return Client(
            id,
            id if self.org is None else self.org,
            tiers[self.tier],
            self.scope(),
            self.quota.rules(),
            self.budget.rules(),
            "file",
        )


class OrgSettings(Section):
    """What all clients of an org may spend together."""

    budget: BudgetSettings = BudgetSettings()
