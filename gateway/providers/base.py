"""The contract of a provider kind, and a configured provider."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Literal

from gateway.codings import Coding
from gateway.errors import Header
from gateway.providers.asked import typed
from gateway.server.headers import RequestRules, ResponseRules
from gateway.upstream.base import Timeouts

if TYPE_CHECKING:
    from gateway.call import Call, Facts
    from gateway.pools import PoolUse
    from gateway.routes import Route
    from gateway.targets import Target
    from gateway.upstream.base import UpstreamClient
    from gateway.usage import Usage

#: "failed" is the provider's own well-formed answer that says that it failed: it goes to the client as it is.
Verdict = Literal["ok", "error", "failed", "cut", "overloaded"]


class Meter(ABC):
    """Follows one reply, chunk by chunk, and keeps only what it needs to find the usage and the verdict."""

    model: str = ""  # the model that the provider says it served
    object_ids: tuple[str, ...] = ()  # of what the reply says the provider stored: a file, a batch and its files, ...

    @property
    def object_id(self) -> str:
        """The first of them, or nothing."""
        return self.object_ids[0] if self.object_ids else ""

    @abstractmethod
    def feed(self, chunk: bytes) -> bytes:
        """Takes the next bytes of the body, gives the bytes to forward now: the same object when nothing is hidden."""

    @abstractmethod
    def finish(self, complete: bool) -> tuple[bytes, Usage, Verdict]:
        """At the end or when the reply was cut (`complete` False): bytes held back that must still go out, what was
        consumed (estimated from what came where the provider did not say), and how it ended: "ok", "error" (an error
        body or event in a 200), "failed" (see above), "cut" (a stream without its end mark), "overloaded" (before any
        content). May be called without any `feed`: a request that was sent and never answered."""


class Kind(ABC):
    """One way of speaking: openai, anthropic, http. Stateless."""

    name: str

    @abstractmethod
    def facts(self, route: Route, body: Any, raw: bytes) -> Facts:
        """What admission needs of a parsed JSON body. Raises BadRequest (with `param`) for wrong types."""

    def form_facts(self, route: Route, fields: dict[str, str], model: str | None) -> Facts:
        """The same of the fields of a multipart form. Its files are not counted: a model's work on them has no
        bound."""
        facts = self.facts(route, typed(fields, model), b"")
        facts.form = fields
        facts.unbounded = facts.unbounded or route.model
        return facts

    @abstractmethod
    def body_for(self, call: Call, target: Target) -> bytes:
        """The bytes to send: the original ones wherever nothing must change."""

    @abstractmethod
    def path_for(self, provider: Provider, call: Call, target: Target | None) -> bytes:
        """The origin-form path and query to ask upstream."""

    @abstractmethod
    def credentials(self, provider: Provider) -> list[Header]:
        """Headers that authenticate at this provider, and its fixed extra headers."""

    def extra_headers(self, call: Call) -> list[Header]:
        """Headers that this kind needs and this client did not send."""
        return []

    @abstractmethod
    def count_input(self, call: Call) -> int:
        """Tokens of the request's text, counted exactly; only where the worst case of a token a byte is lacking."""

    @abstractmethod
    def meter(self, call: Call, target: Target | None, status: int, headers: list[Header]) -> Meter:
        """A fresh meter for one reply."""


@dataclass(eq=False, slots=True)
class Provider:
    """An endpoint and a credential. `base_path` is the path part of its base URL without a trailing slash."""

    name: str
    kind: Kind
    base_url: str
    base_path: bytes
    client: UpstreamClient
    api_key: str = field(default="", repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    headers: list[Header] = field(default_factory=list, repr=False)  # fixed extra request headers
    query: bytes = field(default=b"", repr=False)  # fixed extra query, such as api-version=2024-10-21
    auth_header: bytes = b""  # instead of the kind's own, such as api-key (Azure)
    request_rules: RequestRules = field(default_factory=lambda: RequestRules("http"))  # what may go up
    response_rules: ResponseRules = field(default_factory=lambda: ResponseRules("http"))  # what may come down
    passes: frozenset[bytes] = frozenset()  # request headers that go up by its configuration
    max_concurrent: int = 100
    accepts: tuple[Coding, ...] = ()  # in which long requests may be sent, the favourite first
    body_limit: int = 0  # bytes of a request; 0: the server's own limit only
    retry: dict[str, Any] = field(default_factory=dict)  # rules of its own, by name, where it has other ones than all
    breaker: dict[str, Any] = field(default_factory=dict)  # likewise
    attempt_header: bytes = b""  # the request header that tells the attempt's id, so that both sides can be compared
    pools: PoolUse | None = None  # of a worker: what a call takes of which pools
    stated_pools: frozenset[str] = frozenset()  # of a worker: those of which a caller may state an amount
    sent_headers: list[Header] = field(default_factory=list, repr=False)  # credentials and fixed headers, built once
    credentials: list[list[Header]] = field(default_factory=list, repr=False)  # the same for each key, of several
    health_path: bytes = b""  # answers for nothing; "" asks for a connection only
    tls: Callable[[], SSLContext | None] = field(default=lambda: None, repr=False)  # for connecting without a client
    answers_as: str = field(init=False)  # the same for providers that answer a question alike: where and what is sent
    place: str = field(init=False)  # what breakers are kept by: a worker may have a provider's name

    @property
    def slots(self) -> str:
        """The name of the limit of its calls at a time."""
        return f"queue {'worker' if self.kind.name == 'http' else 'provider'} {self.name}"

    def __post_init__(self) -> None:
        fixed = [sorted(self.headers), self.query, sorted(self.passes)]
        digest = blake2b(repr(fixed).encode(), digest_size=8).hexdigest()  # headers may hold a secret
        self.answers_as = f"{self.name}\0{self.base_url}\0{digest}"
        self.place = self.name if self.kind.name != "http" else f"workers/{self.name}"


def body_headers(headers: list[Header]) -> tuple[bytes, bytes]:
    """The content type and the content encoding of a reply, in lower case, or nothing."""
    content_type = encoding = b""
    for name, value in headers:
        if name == b"content-type":
            content_type = value.lower()
        elif name == b"content-encoding":
            encoding = value.lower()
    return content_type, encoding
