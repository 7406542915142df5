"""Small calls that ask the same of the same model go up as one (../docs/batching.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from gateway.batches import Bounds
from gateway.call import Call
from gateway.merging import ITEMS
from gateway.policy import Gate, Policy
from gateway.scopes import ScopeNames

Milliseconds = Annotated[float, Field(ge=0, le=1_000)]
Count = Annotated[int, Field(ge=2, le=2_048)]  # 2,048: the most that OpenAI takes


def _checked(routes: Mapping[str, float]) -> Mapping[str, float]:
    for route in routes:
        if route not in ITEMS:
            raise ValueError(f"{route!r} can't be batched; these can: {', '.join(ITEMS)}")
    return routes


ByRoute = Annotated[Mapping[str, Milliseconds], AfterValidator(_checked)]


@dataclass
class Batch(Policy):
    """Marks calls that may go up together; the reservation and the carrier join them."""

    enabled: bool = False
    window_ms: Milliseconds = 5.0
    #: By route, instead of both; 0: none there.
    routes: ByRoute = field(default_factory=dict)
    #: By public model, instead of all of these.
    models: Mapping[str, Milliseconds] = field(default_factory=dict)
    max_inputs: Count = 256
    max_kib: Annotated[int, Field(ge=1)] = 256

    fail_open: ClassVar[bool] = True
    after: ClassVar[tuple[str, ...]] = (
        "identity", "access", "idempotency", "quota", "cache", "offpeak", "downgrade", "budget", "pool",
    )  # fmt: skip

    def __post_init__(self) -> None:
        usual = self.window_ms if self.enabled else 0.0
        self._windows = {route: self.routes.get(route, usual) for route in ITEMS}
        is_off = not any(self._windows.values()) and not any(self.models.values())
        self._routes = frozenset(() if is_off else ITEMS)

    def remarks(self, names: ScopeNames) -> Iterator[str]:
        for sentence in names.strange_models(self.models):
            yield f"models: {sentence}"

    def provide(self, gate: Gate) -> None:
        self._batches = gate.batches
        self._batches.are_used = self._batches.are_used or bool(self._routes)

    def concerns(self, call: Call) -> bool:
        return call.route.name in self._routes

    def apply(self, call: Call) -> None:
        if not call.targets or call.queued is not None:  # it waits already, and a reload has its needs declared anew
            return
        window_ms = self.models.get(call.targets[0].model, self._windows[call.route.name])
        if window_ms:
            bounds = Bounds(int(window_ms * 1e6), self.max_inputs, self.max_kib * 1024)
            call.seat = self._batches.seat(call, bounds)
