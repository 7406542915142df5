"""Calls given to a cheaper model, where that is allowed, able, and asked for by a rule; always said.

The rules: ../docs/downgrade.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from gateway.abilities import context_of, fits, wanted_of
from gateway.call import Call, Outcome
from gateway.errors import ModelNotFound
from gateway.peaks import Peaks, Windows, ZoneName
from gateway.policy import Gate, Policy
from gateway.scopes import ScopeNames, may_use
from gateway.targets import Target
from gateway.wishes import accuracy_of, allows_downgrade, urgency_of

#: Routes on which one model's answer may stand for another's: never embeddings, which only compare with their own.
ROUTES = frozenset(("chat", "completions", "responses", "messages"))
_PERCENT = ("budget_used_percent", "pool_short_percent")
_FLAGS = ("always", "off_peak")
#: Targets whose context length is kept ready.
MOST_KNOWN = 10_000


def _checked_chains(chains: Mapping[str, str]) -> Mapping[str, str]:
    for first in chains:
        seen, model = {first}, chains[first]
        while model in chains:
            if model in seen:
                raise ValueError(f"the chain of {first!r} comes back to {model!r}")
            seen.add(model)
            model = chains[model]
        if model in seen:
            raise ValueError(f"the chain of {first!r} comes back to {model!r}")
    return chains


def _checked_when(when: Mapping[str, bool | float]) -> Mapping[str, bool | float]:
    known = (*_FLAGS, *_PERCENT, "queue_wait_s")
    for name, value in when.items():
        if name not in known:
            raise ValueError(f"{name!r} is no trigger; one of {', '.join(known)}")
        if (name in _FLAGS) is not isinstance(value, bool) or value < 0 or (name in _PERCENT and value > 100):
            what = "true or false" if name in _FLAGS else "0 to 100" if name in _PERCENT else "seconds"
            raise ValueError(f"{name} is {what}, not {value!r}")
    return when


Chains = Annotated[Mapping[str, str], AfterValidator(_checked_chains)]
When = Annotated[Mapping[str, bool | float], AfterValidator(_checked_when)]


@dataclass
class Downgrade(Policy):
    """Goes along the chain of the model asked for until one is able, allowed and cheaper."""

    chains: Chains = field(default_factory=dict)
    #: Any one is enough; none: nothing is downgraded.
    when: When = field(default_factory=dict)
    protected_tiers: Sequence[str] = ("enterprise",)
    peak: Windows = ()
    time_zone: ZoneName = "UTC"

    fail_open: ClassVar[bool] = True
    after: ClassVar[tuple[str, ...]] = ("identity", "access", "idempotency", "quota", "cache", "offpeak")

    def __post_init__(self) -> None:
        self._peaks = Peaks(self.peak, self.time_zone)
        self._contexts: dict[tuple[str, str, int | None], int] = {}

    def remarks(self, names: ScopeNames) -> Iterator[str]:
        for sentence in names.strange_models(dict.fromkeys([*self.chains, *self.chains.values()])):
            yield f"chains: {sentence}"
        if self.chains and all(value is False for value in self.when.values()):
            yield "chains: has no effect, since `when` names no trigger, such as always = true"
        if self.when.get("off_peak") and not self._peaks:
            yield "when: off_peak never holds without `peak`"

    def provide(self, gate: Gate) -> None:
        self._gate = gate
        self._pools = gate.pools.by_name
        self._downgraded = gate.metrics.counter(
            "tidegate_downgrades_total", "Calls given to a cheaper model.", ("model", "to", "trigger")
        )

    def concerns(self, call: Call) -> bool:
        return bool(self.chains and call.route.name in ROUTES and call.method == "POST" and call.targets)

    async def apply(self, call: Call) -> AsyncGenerator[None, Outcome]:
        original = call.targets[0]
        named = call.facts.model or ""
        asked = named if named in self.chains else original.model
        if asked not in self.chains or not self._may(call):
            return
        trigger = await self._trigger(call, original)
        targets = self._cheaper(call, original, asked) if trigger else []
        if not targets:
            return
        call.targets = targets
        if self.mode == "observe":
            return
        if call.interest is not None:
            self._gate.answers.call_off(call.interest)  # others who asked the same may not want this model's answer
        name = (call.facts.model or original.model).encode("ascii", "replace")
        call.reply_headers.append((b"x-tidegate-downgraded-from", name))
        self._downgraded.add((original.model, targets[0].model, trigger))
        await call.pipeline.again(call)  # the cache, which so far was asked for the dearer model's answer
        yield
        if call.attempts:
            call.notes["saving"] = _saving(call, original, trigger)

    def _may(self, call: Call) -> bool:
        """Whether the caller lets it happen. Raises BadRequest."""
        allowed, accuracy, urgency = allows_downgrade(call), accuracy_of(call), urgency_of(call)
        if allowed is False or accuracy == "high" or urgency == "urgent":
            return False
        if call.client.tier.name in self.protected_tiers and allowed is not True:
            return False
        # What refers to something that is kept with its model, names several, or has no bound, stays where it is.
        return not (call.facts.unbounded or call.facts.object_ids or call.facts.more_models)

    async def _trigger(self, call: Call, original: Target) -> str:
        """The name of the first that holds, or ""; the dearer ones to ask come last."""
        when, gate = self.when, self._gate
        if when.get("always"):
            return "always"
        if when.get("off_peak") and self._peaks and not self._peaks.end(gate.clock.wall_ns()):
            return "off_peak"
        pools = [self._pools[name] for name in original.pools.amounts] if original.pools is not None else []
        longest_s = when.get("queue_wait_s")
        if longest_s is not None:
            names = [original.provider.slots, *[pool.whole.name for pool in pools]]
            if gate.scheduler.wait_s(names) > longest_s:
                return "queue_wait_s"
        short = when.get("pool_short_percent")
        if short is not None and pools:
            wholes = [pool.whole for pool in pools]
            levels = await gate.store.levels(wholes)
            if any(level.remaining * 100 < short * whole.capacity for whole, level in zip(wholes, levels, strict=True)):
                return "pool_short_percent"
        used = when.get("budget_used_percent")
        if used is not None:
            limits = call.pipeline.spending(call)
            levels = await gate.store.levels(limits)
            for limit, level in zip(limits, levels, strict=True):
                if (limit.capacity - level.remaining) * 100 >= used * limit.capacity:
                    return "budget_used_percent"
        return ""

    def _cheaper(self, call: Call, original: Target, asked: str) -> list[Target]:
        """The targets of the first model of the chain that may and can take the call for less."""
        wanted = wanted_of(call.json)
        model = asked
        while model in self.chains:
            model = self.chains[model]
            try:
                known = self._gate.resolve(model, call.dialect)
            except ModelNotFound:
                continue
            able = [target for target in known if self._is_fit(call, original, target, model, wanted)]
            if able:
                return able
        return []

    def _is_fit(self, call: Call, original: Target, target: Target, model: str, wanted: frozenset[str]) -> bool:
        if target.model == original.model or not (
            may_use(call.client, call.key, "models", model) and may_use(call.client, call.key, "models", target.model)
        ):
            return False
        if any(not getattr(target.abilities, name, False) for name in wanted):
            return False
        if not fits(call, target, self._context(target)):
            return False
        if original.quote.unpriced or target.quote.unpriced:
            return True
        worst = call.estimate(original)
        cost = target.quote.worst(worst.input_tokens, worst.output_tokens, call.facts.units)
        return cost < original.quote.worst(worst.input_tokens, worst.output_tokens, call.facts.units)

    def _context(self, target: Target) -> int:
        key = (target.provider.name, target.upstream_model, target.abilities.context)
        known = self._contexts.get(key)
        if known is None:
            if len(self._contexts) >= MOST_KNOWN:
                self._contexts.clear()
            known = self._contexts[key] = context_of(target)
        return known


def _saving(call: Call, original: Target, trigger: str) -> dict[str, object]:
    """What the same usage had cost at the model asked for. Without figures where either has no price."""
    saving: dict[str, object] = {"method": "downgrade", "from": original.model, "trigger": trigger}
    if not original.quote.unpriced and not any(row.unpriced for row in call.attempts):
        saving["original_pusd"] = sum([original.quote.cost(row.usage) for row in call.attempts])
        saving["actual_pusd"] = sum([row.cost_pusd for row in call.attempts])
    return saving
