"""Calls that go up together: who may go with whom, who fills a batch now, who waits to. Outlives reloads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from gateway.interest import Interest
from gateway.jsonbody import is_exact
from gateway.merging import ITEMS, inputs_of

if TYPE_CHECKING:
    from gateway.call import Call, Outcome
    from gateway.errors import GatewayError, Header
    from gateway.targets import Target

#: Headers that go up, but say nothing of what is asked.
_NO_QUESTION = frozenset((b"user-agent", b"traceparent", b"tracestate"))
#: Headers of calls that go alone: the provider, or our own clock, is told something of just this one.
_ALONE = (b"idempotency-key", b"x-tidegate-needs", b"x-tidegate-deadline", b"content-encoding")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What fills a batch. `window_ns` runs from the first call on."""

    window_ns: int
    most_inputs: int
    most_bytes: int  # of the calls' bodies


@dataclass(slots=True)
class Verdict:
    """What the exchange came to for one member."""

    outcome: Outcome
    headers: list[Header]
    body: bytes = b""
    error: GatewayError | None = None
    members: int = 1  # of the exchange that answered it
    upstream_ns: int = 0


class Seat:
    """A call that may go up with others."""

    __slots__ = (
        "_batches",
        "_verdict",
        "batch",
        "bounds",
        "call",
        "inputs",
        "is_late",
        "key",
        "rode",
        "size",
        "target",
        "verdict",
    )

    def __init__(self, batches: Batches, call: Call, key: bytes, inputs: list[Any], bounds: Bounds) -> None:
        self._batches = batches
        self.call = call
        self.key = key
        self.inputs = inputs
        self.bounds = bounds
        self.size = len(call.body or b"")
        self.target: Target = call.targets[0]
        self.batch: Batch | None = None
        self.rode: list[int] = []  # the exchange's attempts that it was part of, by their place in its list
        self.is_late = False  # nobody waited for its answer when that came
        self._verdict: Verdict | None = None
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for its answer."""
        interest = self.call.interest
        return interest.is_wanted if interest is not None else not self.call.left

    @property
    def has_room(self) -> bool:
        """Whether a batch that it fits into is being filled."""
        return self._batches.with_room(self) is not None

    def board(self) -> bool:
        """Joins that batch; False: it has gone, or is full."""
        batch = self._batches.with_room(self)
        if batch is None:
            return False
        batch.add(self)
        return True

    def settle(self, verdict: Verdict) -> None:
        """What it came to; the first time only. Told when the whole batch is over, since shares are known then."""
        if self._verdict is None:
            self._verdict = verdict

    def open(self) -> None:
        """Tells it."""
        if self._verdict is not None and not self.verdict.done():
            self.verdict.set_result(self._verdict)

    def leave(self) -> None:
        """Gets off before the batch is sent."""
        if self.batch is not None:
            self.batch.leave(self)

    def lead(self) -> Batch:
        """Begins a batch of its own, that others may join from now on."""
        return self._batches.begin(self)

    def stand(self) -> None:
        """Waits in the queue, where a call like it may take it along."""
        self._batches.waiting.setdefault(self.key, {})[self.call.id] = self

    def stand_no_more(self) -> None:
        others = self._batches.waiting.get(self.key, {})
        others.pop(self.call.id, None)
        if not others:
            self._batches.waiting.pop(self.key, None)

    def companions(self) -> Iterator[Seat]:
        """Those who wait in the queue for the same, as they came."""
        return iter(list(self._batches.waiting.get(self.key, {}).values()))


class Batch:
    """Calls that go up together. The first one leads: it holds the slot, and its task makes the exchange."""

    def __init__(self, batches: Batches, leader: Seat) -> None:
        self._batches = batches
        self.leader = leader
        self.seats: list[Seat] = []
        self.inputs = 0
        self.size = 0
        self.is_sealed = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(leader)
        _keep(leader, self._left)

    def fits(self, seat: Seat) -> bool:
        bounds = seat.bounds
        room = self.inputs + len(seat.inputs) <= bounds.most_inputs and self.size + seat.size <= bounds.most_bytes
        return room and not self.is_sealed

    def add(self, seat: Seat) -> None:
        seat.batch = self
        self.seats.append(seat)
        self.inputs += len(seat.inputs)
        self.size += seat.size
        if self.inputs >= seat.bounds.most_inputs:
            self.close()

    def leave(self, seat: Seat) -> None:
        """Before it is sent a member goes without a trace."""
        self.seats.remove(seat)
        self.inputs -= len(seat.inputs)
        self.size -= seat.size
        seat.batch = None

    def close(self) -> None:
        """Nobody else has to be waited for."""
        if not self.ready.done():
            self.ready.set_result(None)

    def seal(self) -> list[Seat]:
        """Nobody joins any more; from now on its members are its own until the exchange is over. Gives them."""
        if self.is_sealed:
            return self.seats
        self.is_sealed = True
        self._batches.end(self)
        for seat in self.seats:
            if seat is not self.leader:
                _keep(seat, self._left)
        if len(self.seats) > 1 and not self.leader.is_wanted:
            self.seats.remove(self.leader)
        return self.seats

    def _left(self) -> None:
        """One whom nobody else waits for has left. With the last one the exchange ends."""
        if not self.is_sealed:
            if len(self.seats) == 1:
                self.seal()
                self.let_go(self.leader)
        elif not any(seat.is_wanted for seat in self.seats):
            self.let_go(self.leader)

    @staticmethod
    def let_go(seat: Seat) -> None:
        """It is no longer needed for the others: if its client has left, it ends now."""
        if seat.call.interest is not None:
            seat.call.interest.let_go()


def _keep(seat: Seat, left: Any) -> None:
    call = seat.call
    if call.interest is None:
        call.interest = Interest()
    call.interest.keep(left)


class Batches:
    """All that are being filled, by what they ask."""

    def __init__(self) -> None:
        self.are_used = False  # by a configuration that was in force
        self._open: dict[bytes, Batch] = {}
        self.waiting: dict[bytes, dict[str, Seat]] = {}

    def seat(self, call: Call, bounds: Bounds) -> Seat | None:
        """A seat for a call that others can go with; None: it goes alone."""
        route, body, targets = call.route.name, call.json, call.targets
        if route not in ITEMS or call.method != "POST" or not isinstance(body, dict) or not targets:
            return None
        if call.body is None or call.facts.stream or any(name in call.headers for name in _ALONE):
            return None
        found = inputs_of(route, body) if is_exact(call.body) else None  # it will be written anew
        limit = targets[0].provider.body_limit
        if limit:
            bounds = Bounds(bounds.window_ns, bounds.most_inputs, min(bounds.most_bytes, limit))
        if found is None or len(found[1]) >= bounds.most_inputs or len(call.body) >= bounds.most_bytes:
            return None
        return Seat(self, call, _key(call, found[0]), found[1], bounds)

    def with_room(self, seat: Seat) -> Batch | None:
        batch = self._open.get(seat.key)
        return batch if batch is not None and batch.fits(seat) else None

    def begin(self, seat: Seat) -> Batch:
        before = self._open.get(seat.key)
        if before is not None:
            before.close()  # it had no room
        batch = self._open[seat.key] = Batch(self, seat)
        return batch

    def end(self, batch: Batch) -> None:
        if self._open.get(batch.leader.key) is batch:
            del self._open[batch.leader.key]


def _key(call: Call, sort: str) -> bytes:
    """All that has to be the same: whose call it is, where it goes and with which headers, and every option."""
    client, key, rules = call.client, call.key, call.targets[0].provider.request_rules
    targets = [[one.provider.name, one.provider.base_url, one.upstream_model, one.model] for one in call.targets]
    options = {name: value for name, value in call.json.items() if name != "input"}
    headers = sorted(
        f"{name!r}{value!r}"
        for name, value in rules.split(call.raw_headers)[0]
        if name not in _NO_QUESTION and not name.startswith(b"x-stainless-")
    )
    path = [call.path.decode("latin-1"), call.query.decode("latin-1")]
    owner = [client.org, client.id, key.id]
    return orjson.dumps([owner, call.route.name, path, sort, targets, headers, options], option=orjson.OPT_SORT_KEYS)
