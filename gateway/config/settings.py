"""Settings: all of gateway.toml, typed and checked table by table."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr

from gateway.config.compression import CompressionSettings
from gateway.config.endpoints import ModelSettings, PriceSettings, ProviderSettings, WorkerSettings
from gateway.config.machine import RecordsSettings, ServerSettings, StateSettings
from gateway.config.overload import OverloadSettings
from gateway.config.people import BUILTIN_TIERS, ClientSettings, OrgSettings, TierSettings
from gateway.config.pools import PoolSettings, with_builtin_pools
from gateway.config.resilience import BreakerSettings, HedgeSettings, RetrySettings
from gateway.config.values import Id, Name, Names, PublicName, Section
from gateway.scopes import ScopeNames

DEFAULT_POLICIES = (
    "identity",
    "access",
    "idempotency",
    "quota",
    "cache",
    "semantic",
    "offpeak",
    "downgrade",
    "budget",
    "pool",
    "batch",
    "queue",
)


def _with_builtin_tiers(value: Any) -> Any:
    """The four tiers, each with the fields that the file sets instead."""
    if not isinstance(value, dict):
        return value
    merged: dict[str, Any] = {name: dict(fields) for name, fields in BUILTIN_TIERS.items()}
    for name, fields in value.items():
        base = merged.get(name, {})
        if not isinstance(fields, dict):
            merged[name] = fields
            continue
        budget = fields.get("budget")
        together = {**base, **fields}
        if isinstance(budget, dict):
            together["budget"] = {**base.get("budget", {}), **budget}
        merged[name] = together
    return merged


class Settings(Section):
    """Everything that can be set. An empty file gives the defaults; `effective` adds what the environment implies."""

    policies: Names = DEFAULT_POLICIES
    server: ServerSettings = ServerSettings()
    state: StateSettings = StateSettings()
    records: RecordsSettings = RecordsSettings()
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    overload: OverloadSettings = OverloadSettings()
    hedge: HedgeSettings = HedgeSettings()
    compression: CompressionSettings = CompressionSettings()
    providers: dict[Name, ProviderSettings] = Field(default_factory=dict)
    models: dict[PublicName, ModelSettings] = Field(default_factory=dict)
    workers: dict[Name, WorkerSettings] = Field(default_factory=dict)
    tiers: Annotated[dict[Name, TierSettings], BeforeValidator(_with_builtin_tiers)] = Field(
        default_factory=dict, validate_default=True
    )
    pools: Annotated[dict[Name, PoolSettings], BeforeValidator(with_builtin_pools)] = Field(
        default_factory=dict, validate_default=True
    )
    orgs: dict[Id, OrgSettings] = Field(default_factory=dict)
    clients: dict[Id, ClientSettings] = Field(default_factory=dict)
    policy: dict[str, dict[str, Any]] = Field(default_factory=dict)
    prices: dict[PublicName, PriceSettings] = Field(default_factory=dict)

    _demo: bool = PrivateAttr(default=False)

    @property
    def demo(self) -> bool:
        """The fake provider runs inside, since no provider is configured; set by `effective`."""
        return self._demo


def scope_names(live: Settings) -> ScopeNames:
    """What scopes of clients and keys may name; `live` is what the configuration comes to (`effective`)."""
    aliases = [alias for model in live.models.values() for alias in model.aliases]
    return ScopeNames((*live.models, *aliases), tuple(live.workers))
