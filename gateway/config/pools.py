"""[pools]: countable resources that calls share, their reserved and dedicated parts, and quotas over them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from gateway.config.people import Instant
from gateway.config.values import Id, Milli, Positive, Rates, Seconds, Section, wrong

#: The figures of the system that was replaced; a file may override single fields of them.
BUILTIN_POOLS: dict[str, dict[str, Any]] = {
    "openai-gpt4": {"unit": "tokens", "capacity": 10_000, "refill_per_s": 166, "windows": ["1000000/day"]},
    "openai-gpt35": {"unit": "tokens", "capacity": 90_000, "refill_per_s": 1_500, "windows": ["1000000/day"]},
    "anthropic-claude": {"unit": "tokens", "capacity": 20_000, "refill_per_s": 333},
    "email": {"unit": "emails", "capacity": 1_000, "refill_per_s": 16, "windows": ["100000/day"]},
    "sms": {"unit": "messages", "capacity": 500, "refill_per_s": 8},
    "database": {"unit": "queries", "capacity": 50_000, "refill_per_s": 833},
    "storage-kv": {"unit": "reads", "capacity": 100_000, "refill_per_s": 1_666},
    "storage-r2": {
        "unit": "bytes",
        "capacity": 1_000_000,
        "refill_per_s": 10_000,
        "windows": ["10737418240/30 days"],
    },
}


def _end_of(value: Any) -> Any:
    """A date as an end is the end of that day."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC) + timedelta(days=1)
    return value


Until = Annotated[
    Instant, BeforeValidator(_end_of), WithJsonSchema({"type": "string", "examples": ["2027-12-31"]})
]  # fmt: skip


class DedicatedSettings(Section):
    """A part of a pool for one client. None: always; a date in `until` holds to the end of that day, in UTC."""

    client: Id
    capacity: Positive
    refill_milli: Milli = Field(alias="refill_per_s")
    since: Instant | None = Field(default=None, alias="from")
    until: Until | None = None

    @model_validator(mode="after")
    def _lasts(self) -> DedicatedSettings:
        first, end = self.span_wall_ns
        if end <= first:
            raise wrong("a part that ends after it begins", "until")
        return self

    @property
    def span_wall_ns(self) -> tuple[int, int]:
        """Its first nanosecond since the epoch, and the first after it."""
        return (0 if self.since is None else _ns(self.since), 2**63 if self.until is None else _ns(self.until))


class PoolSettings(Section):
    """A token bucket. Its reserved and dedicated parts are taken out of `capacity` and `refill_per_s`, which are all
    there is. `learn` None: what a provider says of its limits corrects the pool if only one provider draws on it."""

    unit: str = "requests"
    capacity: Positive
    refill_milli: Milli = Field(alias="refill_per_s")
    reserved_percent: Annotated[int, Field(ge=0, le=90)] = 10
    lend_idle: bool = True
    lend_s: Seconds = 30.0
    idle_s: Seconds = 10.0
    learn: bool | None = None
    windows: Rates = ()
    dedicated: tuple[DedicatedSettings, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("dedicated"), list):
            return {**data, "dedicated": tuple(data["dedicated"])}
        return data

    @model_validator(mode="after")
    def _fits(self) -> PoolSettings:
        """At every time the parts are at most the whole."""
        reserved = self.capacity * self.reserved_percent // 100
        for _, parts in self.eras():
            clients = [part.client for part in parts]
            if len(set(clients)) < len(clients):
                raise wrong("one part at a time for each client", "dedicated")
            if sum(part.capacity for part in parts) + reserved > self.capacity:
                raise wrong(
                    f"parts that fit into capacity = {self.capacity}, {reserved} reserved included", "dedicated"
                )
            refill = sum(part.refill_milli for part in parts) * 100 + self.refill_milli * self.reserved_percent
            if refill > self.refill_milli * 100:
                raise wrong("parts whose refill fits into the pool's, the reserved part's included", "dedicated")
        return self

    def eras(self) -> Iterator[tuple[int, list[DedicatedSettings]]]:
        """Whenever the dedicated parts become others: nanoseconds since the epoch, and the parts from then on."""
        starts = {0, *(edge for one in self.dedicated for edge in one.span_wall_ns)}
        for start in sorted(starts):
            yield start, [one for one in self.dedicated if one.span_wall_ns[0] <= start < one.span_wall_ns[1]]


def _ns(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def with_builtin_pools(value: Any) -> Any:
    """The built-in pools, each with the fields that the file sets instead."""
    if not isinstance(value, dict):
        return value
    merged: dict[str, Any] = {name: dict(fields) for name, fields in BUILTIN_POOLS.items()}
    for name, fields in value.items():
        merged[name] = {**merged.get(name, {}), **fields} if isinstance(fields, dict) else fields
    return merged
