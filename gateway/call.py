"""One client request as the policies know it, and how it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gateway.clients import Client, Key, Tier
from gateway.errors import Dialect, GatewayError, Header
from gateway.interest import Interest
from gateway.recording import Recording, Room
from gateway.state.store import Level, Limit
from gateway.usage import Estimate, Usage

if TYPE_CHECKING:
    from gateway.answers import Answer
    from gateway.batches import Seat
    from gateway.heartbeat import Beat
    from gateway.pipeline import Pipeline
    from gateway.records.rows import AttemptRow
    from gateway.routes import Route
    from gateway.routing.told import Told
    from gateway.scheduler import Loans, Placement, Queued
    from gateway.targets import Target

#: Who a call belongs to before anybody is known; may do nothing.
NOBODY = Client(id="", org="", tier=Tier(""))
NO_KEY = Key(id="", client_id="", role="viewer")

OutcomeKind = Literal["served", "answered", "refused", "failed", "gone"]


@dataclass(slots=True)
class Facts:
    """What admission needs of a request's body; read once, by the provider kind that will serve it."""

    model: str | None = None
    stream: bool = False
    max_tokens: int | None = None
    n: int = 1
    prompt_bytes: int = 0  # of the whole body: at least as many as its tokens
    input_tokens: int | None = None  # counted exactly, where one token a byte was too much
    asked_usage: bool = False  # the client itself asked for the usage chunk of a stream
    unbounded: bool = False  # hosted tools, previous_response_id, audio: no worst case can be computed
    units: dict[str, int] = field(default_factory=dict)  # known before sending: images by size, characters, inputs
    object_ids: tuple[str, ...] = ()  # provider objects the body names; must belong to the caller's org
    is_routed: bool = False  # the body of a path that we know nothing about names a model, which has to be routable
    more_models: tuple[str, ...] = ()  # that it names besides, further inside
    form: dict[str, str] | None = None  # fields of a multipart body, as they come
    stated: dict[str, int] | None = None  # what a worker's caller says in the body that it takes of pools


@dataclass(slots=True)
class Reply:
    """An answer made here instead of upstream (a cache hit, a list of models). A tuple is a recorded stream: it goes
    out chunk for chunk, `pause_s` apart."""

    status: int
    headers: list[Header]
    body: bytes | tuple[bytes, ...] | AsyncIterator[bytes]
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Refuse:
    """Lacking this need refuses the call with `error(message, retry_after_s=..., policy=...)`."""

    error: type[GatewayError]
    what: str  # "requests a minute of client acme": goes into the message


@dataclass(frozen=True, slots=True)
class Wait:
    """Lacking this need makes the call wait in the scheduler; refused with `error` where the queue policy is off."""

    error: type[GatewayError]
    what: str


LimitOf = Callable[["Call", "Target"], Limit | None]
AmountOf = Callable[["Call", "Target"], int]
SettleOf = Callable[["Call", "Outcome"], int]
#: What a call holds of a limit: the need, its limit and amount, and the attempt it is for (WHOLE: the call's own).
Held = tuple["Need", Limit, int, int]
WHOLE = -1


@dataclass(frozen=True, slots=True)
class Need:
    """How much of one limit a call takes at worst, how its outcome settles that, and what lacking it means.

    `limit` and `amount` may depend on the target (a pool of the model, tokens at its default length), so they are
    resolved at the reservation and again at failover; a limit of None, or an amount of 0, needs nothing. `settle` None
    keeps what was reserved (a request is a request). A need whose limit depends on the target belongs to an attempt and
    is settled by that attempt's own usage. Needs without a closure over the call are built once and shared.
    """

    limit: Limit | LimitOf
    amount: int | AmountOf
    lacking: Refuse | Wait
    settle: SettleOf | None = None
    even_if_cached: bool = False
    policy: str = ""
    waits: bool = field(init=False)  # lacking it makes the call wait
    whole: Limit | None = field(init=False)  # the limit, where it does not depend on the target
    per_target: bool = field(init=False)  # where it does
    is_fixed: bool = field(init=False)  # neither limit nor amount depends on anything

    def __post_init__(self) -> None:
        object.__setattr__(self, "waits", isinstance(self.lacking, Wait))
        object.__setattr__(self, "whole", self.limit if isinstance(self.limit, Limit) else None)
        object.__setattr__(self, "per_target", self.whole is None)
        object.__setattr__(self, "is_fixed", self.whole is not None and isinstance(self.amount, int))


@dataclass(slots=True)
class Outcome:
    """How a call ended; what a policy gets after its `yield`, exactly once.

    served: a complete answer went out. answered: `call.answer` ended it. refused: by us. failed: upstream did.
    gone: the client left. `complete` says that the answer is whole and a success (2xx): the only kind to cache.
    """

    kind: OutcomeKind
    status: int
    usage: Usage
    cost_pusd: int = 0
    complete: bool = False
    error: GatewayError | None = None
    target: Target | None = None
    chunks: tuple[bytes, ...] | None = None  # of the body as they went out; only if tapped, and within the bounds
    headers: list[Header] = field(default_factory=list)
    attempted: bool = False  # an upstream may have seen it

    @property
    def body(self) -> bytes | None:
        """The whole body, where there are chunks."""
        return None if self.chunks is None else b"".join(self.chunks)


class Call:
    """One request of one client. Policies read it, refuse by raising, and write only through its methods,
    `targets`, `facts` and `reply_headers`."""

    __slots__ = (
        "_estimate",
        "applying",
        "attempts",
        "beat",
        "body",
        "borne_pusd",
        "client",
        "concluded",
        "deadline_ns",
        "demo",
        "dialect",
        "facts",
        "first_bytes",
        "headers",
        "heard",
        "held",
        "hold",
        "id",
        "interest",
        "is_held_besides",
        "json",
        "key",
        "left",
        "levels",
        "loans",
        "marks",
        "memo",
        "method",
        "needs",
        "not_before_ns",
        "notes",
        "object_id",
        "path",
        "peer",
        "pending",
        "pipeline",
        "placement",
        "query",
        "queued",
        "raw_headers",
        "recording",
        "reply",
        "reply_headers",
        "reserved_pusd",
        "rides",
        "route",
        "seat",
        "shadows",
        "source",
        "started_ns",
        "started_wall_ns",
        "targets",
        "upstream_ns",
        "worker",
    )

    def __init__(
        self,
        *,
        id: str,
        route: Route,
        dialect: Dialect,
        method: str,
        path: bytes,
        query: bytes,
        raw_headers: Sequence[Header],
        started_ns: int,
        started_wall_ns: int,
        peer: str = "",
        headers: Mapping[bytes, bytes] | None = None,
        memo: dict[Any, Any] | None = None,
    ) -> None:
        self.id = id  # UUIDv7; the x-request-id of the answer
        self.route = route
        self.dialect = dialect
        self.method = method
        self.path = path  # canonical; what is decided on is what is forwarded
        self.query = query
        self.raw_headers = raw_headers
        self.headers = dict(raw_headers) if headers is None else headers  # lower-case names; the last of duplicates
        self.memo = {} if memo is None else memo  # what follows from the head alone; see `Arrival`
        self.started_ns = started_ns
        self.started_wall_ns = started_wall_ns
        self.peer = peer
        self.body: bytes | None = None  # None: not buffered (multipart, uploads)
        self.json: Any = None  # the parsed body of JSON routes, or None
        self.facts = Facts()
        self.client: Client = NOBODY  # until identity, the first policy, knows better
        self.key: Key = NO_KEY
        self.object_id = ""  # a provider object that the path names
        self.worker = ""  # name, on worker routes
        self.targets: list[Target] = []
        self.needs: list[Need] = []
        self.reply: Reply | None = None
        self.reply_headers: list[Header] = []
        self.source: Answer | None = None  # that was found for exactly this question
        self.notes: dict[str, Any] = {}  # a policy's own remarks: go to the log line and the record
        self.marks: list[str] = []  # what observing policies would have done
        self.attempts: list[AttemptRow] = []
        self.hold = ""  # id of what the store holds for this call
        self.held: list[Held] = []  # in the order of the hold's wants
        self.is_held_besides = False  # some of it twice: for the attempt before, and for the next one besides
        self.placement: Placement | None = None  # how it stands in the queue; None: it refuses instead of waiting
        self.not_before_ns = 0  # monotonic; it waits at least until then (off-peak)
        self.heard: list[tuple[Target, Told, int]] = []  # what providers said of their limits, when (monotonic)
        self.queued: Queued | None = None  # how it waited, if it did
        self.beat: Beat | None = None  # writes a comment on a stream that has not begun; for signs of life
        self.shadows: list[Need] = []  # needs of observing policies
        self.reserved_pusd = 0  # worst-case cost that was reserved
        self.levels: list[tuple[Limit, Level]] = []  # how the caller's limits stand, for the answer's headers
        self.applying = ""  # the policy that speaks now
        self.seat: Seat | None = None  # it may go up together with others
        self.rides = False  # and does: the slot and the provider's request are another one's
        self.pipeline: Pipeline  # of the configuration that the call began with
        self.demo = False  # answered by the fake provider inside
        self.upstream_ns = 0  # time spent waiting for upstream
        self.deadline_ns: int | None = None  # monotonic; the client's own, see gateway/deadline.py
        self.concluded = False  # settled and recorded; nothing more will be
        self.pending: list[Any] = []  # the pipeline's: generators that wait for the outcome
        self.recording: Recording | None = None  # of the reply, if somebody tapped it
        self.left = False  # the client did
        self.interest: Interest | None = None  # others who wait for the same answer
        self.first_bytes: Callable[[], Awaitable[bytes]] | None = None  # of a body that is passed on unread
        self.loans: Loans | None = None  # places in the queue that they lend
        #: Its part of a cost that calls answered together share; None: it bears its own.
        self.borne_pusd: int | None = None
        self._estimate: tuple[Target, int | None, int | None, Estimate] | None = None

    def need(
        self,
        limit: Limit | LimitOf,
        amount: int | AmountOf,
        *,
        lacking: Refuse | Wait,
        settle: SettleOf | None = None,
        even_if_cached: bool = False,
    ) -> None:
        """Declares what this call takes of a limit; the pipeline reserves all needs at once."""
        self.needs.append(Need(limit, amount, lacking, settle, even_if_cached, self.applying))

    def answer(self, reply: Reply) -> None:
        """Ends the descent with an answer made here."""
        self.reply = reply

    def tap(self, max_bytes: int, room: Room | None = None) -> None:
        """Asks for the reply's chunks in the Outcome, if they are no longer than this together. `room` bounds what all
        recordings of one reader hold. Without taps nothing is kept."""
        if self.recording is None:
            self.recording = Recording()
        self.recording.widen(max_bytes, room)

    def header(self, name: bytes) -> bytes | None:
        """A request header by its lower-case name."""
        return self.headers.get(name)

    def estimate(self, target: Target) -> Estimate:
        """Worst case of this call on that target. Asked by every limit in turn, so the last answer is kept."""
        known, facts = self._estimate, self.facts
        if known is not None and known[0] is target and known[1] == facts.input_tokens and known[2] == facts.max_tokens:
            return known[3]
        estimate = target.estimate(facts)
        self._estimate = target, facts.input_tokens, facts.max_tokens, estimate
        return estimate
