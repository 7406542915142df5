"""The Policy contract, the loader by name, and the check of their order."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

from gateway.call import Call, Outcome

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from gateway.answers import Answers
    from gateway.batches import Batches
    from gateway.clock import Clock
    from gateway.directory import Directory
    from gateway.errors import Dialect
    from gateway.events import Events
    from gateway.metrics import Metrics
    from gateway.pools import Pools
    from gateway.prices import Prices
    from gateway.results import Results
    from gateway.routing.told import Told
    from gateway.scheduler import Placement, Scheduler
    from gateway.scopes import ScopeNames
    from gateway.state.store import Limit, Store
    from gateway.targets import Target

Mode = Literal["enforce", "observe"]
Applied = None | Awaitable[None] | AsyncGenerator[None, Outcome]


class Gate(Protocol):
    """What a policy is given at start-up; nothing else of the gateway is its business."""

    store: Store
    scheduler: Scheduler
    clock: Clock
    prices: Prices
    metrics: Metrics
    events: Events
    directory: Directory
    results: Results
    pools: Pools
    answers: Answers
    batches: Batches
    time_zone: str

    def resolve(self, model: str, dialect: Dialect) -> list[Target]:
        """Where a public name can be served now, by the configuration in force. Raises ModelNotFound."""


@dataclass
class Policy:
    """One rule. Its fields are its settings ([policy.NAME] in gateway.toml); `apply` decides, read top to bottom.

    `apply` may be a plain function or a coroutine (it only decides), or an async generator (what follows its one
    `yield` gets the Outcome, exactly once, in reverse order). It refuses by raising a GatewayError.
    """

    name: ClassVar[str] = ""  # by default the module's name
    after: ClassVar[tuple[str, ...]] = ()  # policies that must stand earlier in the list
    fail_open: ClassVar[bool] = False  # True: an unexpected error of this policy lets the call pass
    always_enforce: ClassVar[bool] = False  # identity: observing it would let strangers in
    before_body: ClassVar[bool] = False  # True: needs only the head of the request, and decides before its body is read

    mode: Mode = field(default="enforce", kw_only=True)

    def remarks(self, names: ScopeNames) -> Iterable[str]:
        """Sentences about settings that are allowed and yet without effect; `names` are those of the configuration."""
        return ()

    def provide(self, gate: Gate) -> None:
        """Once, before the first call: fetch what is needed, precompute what can be."""

    def limits(self, call: Call) -> Sequence[Limit]:
        """The limits that bound this caller, for the rate-limit headers of answers given before any reservation."""
        return ()

    def spending(self, call: Call) -> Sequence[Limit]:
        """The limits of money that bound this caller, for those who save when little is left."""
        return ()

    def place(self, call: Call) -> Placement | None:
        """How this call would stand in the queue, for those who wait for another one's answer."""
        return None

    async def heard(self, call: Call, target: Target, told: Told, at_ns: int) -> None:
        """A reply's head said at `at_ns` (monotonic) how the provider's own limits stand. Told when it came and again
        when the call is settled; only of targets that take of a pool."""

    def concerns(self, call: Call) -> bool:
        """False: `apply` has nothing to say about this call. For policies that few calls have to do with: an `apply`
        that waits or follows up costs microseconds, this a tenth of one. It must neither wait nor refuse."""
        return True

    def again(self, call: Call) -> None:
        """A later policy made another call of it, by giving it other targets: what was said of it is taken back here,
        and `apply` decides once more (`Pipeline.again`). Policies that don't define this decide once."""

    def apply(self, call: Call) -> Applied:
        """Decides on one call."""
        raise NotImplementedError(f"{type(self).__name__}.apply")


class PolicyError(ValueError):
    """A policy that can't be loaded or stands in the wrong place; `policy` and `key` name where.

    `unknown` are settings that it does not have, `faults` what pydantic found wrong with others.
    """

    def __init__(
        self,
        message: str,
        policy: str,
        key: str = "",
        *,
        hint: str = "",
        unknown: Sequence[str] = (),
        faults: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.policy = policy
        self.key = key
        self.hint = hint
        self.unknown = unknown
        self.faults = faults


def policy_class(name: str) -> type[Policy]:
    """The class behind a name: `policies/NAME.py`, or "package.module:Class" for one's own."""
    module_name, _, class_name = name.partition(":")
    if not class_name and "." not in module_name:
        module_name = f"policies.{module_name}"
    module = _module(module_name, name)
    if class_name:
        return _named(_own(getattr(module, class_name, None), module_name, class_name, name), module_name)
    for candidate in vars(module).values():
        if _is_policy(candidate) and candidate.__module__ == module.__name__:
            return _named(candidate, module_name)
    raise PolicyError(f"module {module_name} defines no policy", name, hint=_HOW)


_HOW = "a policy is a class that derives from gateway.policy.Policy"
_WHERE = "modules are looked for in the working directory, in PYTHONPATH and among what is installed"


def _module(module_name: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        if module_name.startswith("policies."):
            raise PolicyError(f"there is no policy {name!r}", name) from None
        raise PolicyError(f"module {error.name!r} of policy {name!r} can't be found", name, hint=_WHERE) from None


def _own(found: object, module_name: str, class_name: str, name: str) -> type[Policy]:
    if found is None:
        raise PolicyError(f"module {module_name!r} has no class {class_name!r}", name)
    if not _is_policy(found):
        raise PolicyError(f"{name!r} is no policy", name, hint=_HOW)
    return cast("type[Policy]", found)


def _is_policy(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, Policy) and found is not Policy


def _named(found: type[Policy], module_name: str) -> type[Policy]:
    if not found.name:
        found.name = module_name.rpartition(".")[2]
    return found


def known_settings(cls: type[Policy]) -> list[str]:
    """The names that [policy.NAME] may hold."""
    return [f.name for f in fields(cls) if f.init]


#: Of a policy's settings. Making one costs 3 ms; a start needs each twice, a reload again.
_CHECKERS: dict[type[Policy], TypeAdapter[Any]] = {}


def _checker(cls: type[Policy]) -> TypeAdapter[Any]:
    known = _CHECKERS.get(cls)
    if known is None:
        from pydantic import ConfigDict, TypeAdapter
        from pydantic.dataclasses import dataclass as checked

        known = TypeAdapter(checked(cls, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True)))
        _CHECKERS[cls] = known
    return known


def build(name: str, settings: dict[str, Any]) -> Policy:
    """A policy with its settings checked against its fields' types."""
    from pydantic import ValidationError

    cls = policy_class(name)
    unknown = [key for key in settings if key not in known_settings(cls)]
    rest = {key: value for key, value in settings.items() if key not in unknown}
    faults: list[Mapping[str, Any]] = []
    try:
        _checker(cls).validate_python(rest)
    except ValidationError as error:
        faults += error.errors(include_url=False)
    if unknown or faults:
        told = [f"unknown setting {key!r}" for key in unknown]
        told += [f"{'.'.join(map(str, one['loc']))}: {one['msg']}, found {one['input']!r}" for one in faults]
        key = unknown[0] if unknown else ".".join(map(str, faults[0]["loc"]))
        raise PolicyError("; ".join(told), name, key, unknown=unknown, faults=faults)
    policy = cls(**settings)
    if cls.always_enforce and policy.mode == "observe":
        raise PolicyError("this policy always enforces: without it nobody is told apart", name, "mode")
    return policy


def check_order(policies: Sequence[Policy]) -> None:
    """Every name in a policy's `after` that is in the list must stand before it."""
    names = [p.name for p in policies]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise PolicyError(f"{name!r} stands twice in the list", name)
    for index, policy in enumerate(policies):
        for earlier in policy.after:
            if earlier in names[index:]:
                raise PolicyError(f"{policy.name!r} must come after {earlier!r}", policy.name)
            if earlier == "identity" and earlier not in names:
                raise PolicyError(f"{policy.name!r} needs {earlier!r} before it in the list", policy.name)
