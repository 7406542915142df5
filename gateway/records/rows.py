"""The two rows of the ledger, and provider objects. Cost sits on attempts, charge and savings on the call."""

from __future__ import annotations

import msgspec

from gateway.usage import Usage


class AttemptRow(msgspec.Struct, array_like=True):
    """One exchange with an upstream: intended before it is sent, settled once. Money in pico-dollars, times in us."""

    id: str  # "<call id>.<n>"
    call_id: str
    n: int  # 1, 2, ...
    org: str
    client: str
    key: str
    route: str
    provider: str
    model: str  # public name
    upstream_model: str
    started_wall_ns: int
    worst_pusd: int  # what an unresolved intent counts
    worst_tokens: int
    # settled:
    outcome: str = "open"  # open, served, failed, gone, unresolved
    status: int = 0
    error: str = ""  # code, for those that failed
    ttfb_us: int = 0  # time to first byte of the reply
    duration_us: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    audio_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    units: dict[str, int] | None = None
    cost_pusd: int = 0
    price_version: str = ""
    estimated: bool = False
    unpriced: bool = False
    upstream_request_id: str = ""

    @property
    def usage(self) -> Usage:
        """What the row says was used."""
        return Usage(
            self.input_tokens,
            self.cached_tokens,
            self.cache_write_tokens,
            self.cache_write_1h_tokens,
            self.audio_input_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.audio_output_tokens,
            dict(self.units or {}),
            self.estimated,
        )


class CallRow(msgspec.Struct, array_like=True):
    """One client request, however it ended. Sums of its attempts' cost; `charge_pusd` is what the client pays."""

    id: str
    org: str
    client: str
    key: str
    route: str
    method: str
    path: str  # canonical, without the query
    dialect: str
    model: str  # as asked
    served_model: str
    provider: str
    started_wall_ns: int
    outcome: str  # served, answered, refused, failed, gone
    status: int
    error: str = ""
    policy: str = ""  # which refused
    stream: bool = False
    attempts: int = 0
    ttfb_us: int = 0
    duration_us: int = 0
    overhead_us: int = 0  # ours: duration less what we waited for upstream
    wait_us: int = 0  # in the queue
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_pusd: int = 0
    charge_pusd: int = 0
    saved_pusd: int = 0
    saving: str = ""  # the method: cache, semantic, downgrade, batching, single_flight
    estimated: bool = False
    unpriced: bool = False
    notes: dict[str, object] | None = None
    question: str | None = None  # a keyed digest of what was asked; see gateway/questions.py
    traits: str | None = None  # what a downgrade and a later hour depend on, in words


class ObjectRow(msgspec.Struct, array_like=True, frozen=True):
    """A provider object and its maker; `kind` is file, batch, response, ..."""

    id: str
    org: str
    client: str
    provider: str
    kind: str
    created_wall_ns: int


class ResultRow(msgspec.Struct, array_like=True, frozen=True):
    """The first result of an idempotency key. `answer` is msgpack, None where it was too long to be kept."""

    id: str  # made from org, client and key
    org: str
    call: str  # id of the call that executed
    expires_wall_ns: int
    fingerprint: bytes  # of path, query and body
    status: int
    answer: bytes | None
