"""Who waits, how long, and before whom; and how many calls a provider, a worker and the gateway run at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field

from gateway.call import Call, Need, Wait
from gateway.errors import RateLimited
from gateway.policy import Gate, Policy
from gateway.scheduler import Placement, QueueSettings
from gateway.state.store import Limit, Slots
from gateway.targets import Target
from gateway.wishes import CLAIMS, Urgency, at_most, deadline_wished, longest_wait_of, urgency_of

#: Seconds by urgency, where the settings are silent. The reference's, but for `low`: 1 h is for jobs.
LONGEST_WAIT_S: Mapping[Urgency, float] = {"urgent": 1.0, "high": 10.0, "normal": 60.0, "low": 120.0}
#: The most a tier may claim.
#: Providers whose slots are kept ready: more than any configuration has.
MOST_PROVIDERS = 10_000

Count = Annotated[int, Field(ge=1)]
SomeSeconds = Annotated[float, Field(gt=0)]
NoSeconds = Annotated[float, Field(ge=0)]


@dataclass
class Queue(Policy):
    """Gives each call its place, should it have to wait, and declares the slots it takes.

    The one reservation of all that was declared follows it; what only lacks for now is waited for.
    """

    max_waiting: Count = 1000
    max_waiting_per_client: Count = 200
    #: Of the request bodies of all calls that wait; a client may have half. What is no longer than its part of it
    #: (divided by max_waiting) always finds room.
    max_waiting_mib: Count = 256
    longest_wait_s: Mapping[Urgency, NoSeconds] = field(default_factory=lambda: {**LONGEST_WAIT_S})
    starvation_s: SomeSeconds = 600.0
    floor_percent: Annotated[int, Field(ge=0, le=50)] = 5
    #: The most urgent a call of a tier may be; others are lowered to it. A tier that is not named: normal.
    claims: Mapping[str, Urgency] = field(default_factory=lambda: {**CLAIMS})
    #: Calls at a time through the whole gateway; absent: no bound but those of clients, providers and workers.
    max_concurrent: Count | None = None
    heartbeat: bool = False
    heartbeat_s: SomeSeconds = 10.0

    after: ClassVar[tuple[str, ...]] = (
        "identity",
        "access",
        "quota",
        "cache",
        "offpeak",
        "downgrade",
        "budget",
        "pool",
        "batch",
    )

    def __post_init__(self) -> None:
        self._longest_s: dict[Urgency, float] = {**LONGEST_WAIT_S, **self.longest_wait_s}
        self._claims: dict[str, Urgency] = {**CLAIMS, **self.claims}
        self._slots: dict[Any, Slots] = {}  # by provider
        self._usual: dict[tuple[str, int], Placement] = {}  # by tier and its points: of calls that wish nothing
        lacking = Wait(RateLimited, "calls at a time of this provider")
        self._needs = [Need(self._slots_of, 1, lacking, policy=self.name)]
        if self.max_concurrent is not None:
            overall = Slots("queue overall", self.max_concurrent)
            self._needs.append(Need(overall, 1, Wait(RateLimited, "calls at a time"), policy=self.name))

    def provide(self, gate: Gate) -> None:
        self._scheduler = gate.scheduler
        settings = QueueSettings(
            self.max_waiting,
            self.max_waiting_per_client,
            self.max_waiting_mib * 1_048_576,
            self.starvation_s,
            self.floor_percent,
        )
        gate.scheduler.configure(settings)
        gate.scheduler.claims = self._claims

    def apply(self, call: Call) -> None:
        call.needs += self._needs
        if call.queued is not None:
            return  # it waits already, and a reload has its needs declared anew
        self._scheduler.count(call.client.id, call.started_wall_ns)
        call.placement = self.place(call)

    def place(self, call: Call) -> Placement:
        claimed, longest_s, deadline_ns = urgency_of(call), longest_wait_of(call), deadline_wished(call)
        tier = call.client.tier
        if claimed is None and longest_s is None and deadline_ns is None:
            key = tier.name, tier.priority
            usual = self._usual.get(key)
            if usual is None:
                urgency = at_most("normal", self._claims.get(tier.name, "normal"))
                usual = self._usual[key] = self._placement(urgency, tier.priority, None, None)
            return usual
        urgency = at_most(claimed or "normal", self._claims.get(tier.name, "normal"))
        if claimed is not None and urgency != claimed:
            call.notes["priority"] = f"{claimed} was claimed, {urgency} is the most for tier {tier.name}"
        return self._placement(urgency, tier.priority, longest_s, deadline_ns)

    def _placement(self, urgency: Urgency, points: int, longest_s: float | None, deadline_ns: int | None) -> Placement:
        usual_s = self._longest_s[urgency]
        longest_s = usual_s if longest_s is None else longest_s
        return Placement(
            urgency,
            points,
            min(longest_s, self._scheduler.http_wait_cap_s),
            deadline_ns,
            usual_s,
            heartbeat_s=self.heartbeat_s if self.heartbeat else 0.0,
        )

    def _slots_of(self, call: Call, target: Target) -> Limit | None:
        if call.rides:
            return None  # another call holds the one that both go up with
        provider = target.provider
        found = self._slots.get(provider)
        if found is None:
            if len(self._slots) >= MOST_PROVIDERS:
                self._slots.clear()
            found = self._slots[provider] = Slots(provider.slots, provider.max_concurrent)
        return found
