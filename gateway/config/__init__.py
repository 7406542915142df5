"""Configuration: gateway.toml, the environment and flags, to typed and validated settings.

loaded = load(path, flags={"server.listen": "0.0.0.0:80"})     # Loaded, or ConfigError with every problem
live = effective(loaded.settings, os.environ)                  # with what the environment implies
live = at_demo(live, "http://127.0.0.1:40123")                 # where live.demo: the fake provider's address
"""

from gateway.config.compare import changes, needs_restart
from gateway.config.effective import at_demo, effective
from gateway.config.endpoints import (
    EndpointSettings,
    ModelSettings,
    PriceSettings,
    ProviderSettings,
    TargetSettings,
    TimeoutSettings,
    WorkerSettings,
)
from gateway.config.load import Loaded, find, load
from gateway.config.machine import RecordsSettings, ServerSettings, StateSettings
from gateway.config.people import (
    BudgetSettings,
    ClientSettings,
    KeySettings,
    OrgSettings,
    QuotaSettings,
    TierSettings,
)
from gateway.config.pools import DedicatedSettings, PoolSettings
from gateway.config.problems import ConfigError, Problem, show_problems
from gateway.config.resilience import BreakerSettings, HedgeSettings, RetrySettings
from gateway.config.settings import Settings, scope_names

__all__ = [
    "BreakerSettings",
    "BudgetSettings",
    "ClientSettings",
    "ConfigError",
    "DedicatedSettings",
    "EndpointSettings",
    "HedgeSettings",
    "KeySettings",
    "Loaded",
    "ModelSettings",
    "OrgSettings",
    "PoolSettings",
    "PriceSettings",
    "Problem",
    "ProviderSettings",
    "QuotaSettings",
    "RecordsSettings",
    "RetrySettings",
    "ServerSettings",
    "Settings",
    "StateSettings",
    "TargetSettings",
    "TierSettings",
    "TimeoutSettings",
    "WorkerSettings",
    "at_demo",
    "changes",
    "effective",
    "find",
    "load",
    "needs_restart",
    "scope_names",
    "show_problems",
]
