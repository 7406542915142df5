"""Header rules: which request headers go up to an upstream, and which response headers come down to a client.

An AI provider gets and gives what is listed here; an HTTP worker all that is end-to-end. Never passed on are hop-by-hop
headers (RFC 9110 section 7.6.1), the client's credentials, what claims an identity or an origin (the gateway says that
itself, unless a trusted proxy did), and names with an underscore (CGI and WSGI read `x_forwarded_for` as
`x-forwarded-for`). What a name is worth is decided once and remembered.

A Connection header may name more headers as hop-by-hop. They are dropped, except those in PROTECTED: otherwise a client
could take away what a rule was decided by, or what the next server relies on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from gateway.server.head import connection_options

Header = tuple[bytes, bytes]


def _names(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


HOP_BY_HOP = _names(
    "connection keep-alive proxy-connection proxy-authenticate proxy-authorization proxy-authentication-info "
    "te trailer transfer-encoding upgrade http2-settings expect"
)
CREDENTIALS = _names("authorization x-api-key api-key x-goog-api-key x-auth-token cookie cookie2")
# Who calls, and from where, as proxies, single sign-on and TLS terminators in common use say it.
IDENTITY = _names(
    "x-client-id x-user-id x-worker-id x-org-id x-real-ip x-client-ip true-client-ip x-cluster-client-ip "
    "cf-connecting-ip cf-connecting-ipv6 fastly-client-ip fly-client-ip x-appengine-user-ip x-azure-clientip "
    "x-azure-socketip x-envoy-external-address x-envoy-internal x-originating-ip x-forwarded x-original-forwarded-for "
    "x-original-host x-host remote-user remote-groups remote-name remote-email client-cert client-cert-chain "
    "x-arr-clientcert x-client-cert x-client-dn x-client-verify"
)
IDENTITY_PREFIXES = (
    *(b"x-forwarded-", b"x-remote-", b"x-auth-request-", b"x-authenticated-", b"x-webauth-", b"x-authentik-"),
    *(b"x-amzn-oidc-", b"x-goog-authenticated-user-", b"x-ms-client-principal", b"cf-access-", b"tailscale-user-"),
    *(b"x-consumer-", b"x-credential-", b"x-ssl-", b"ssl-client-"),
)
# Also `Proxy`, which CGI programs find as HTTP_PROXY (httpoxy.org).
OVERRIDES = _names("x-original-url x-rewrite-url x-http-method x-http-method-override x-method-override proxy")
WRITTEN_ANEW = _names("connection host x-forwarded-for x-forwarded-proto x-forwarded-host")
REQUEST_IDS = _names("x-request-id request-id")
OPERATOR = _names("openai-organization openai-project anthropic-organization-id")  # whose account pays
STEERING = _names("alt-svc x-sendfile x-sendfile2 x-reproxy-url x-reproxy-file")  # a proxy before us
STEERING_PREFIXES = (b"x-accel-", b"x-lighttpd-", b"x-litespeed-")

PROTECTED = (
    CREDENTIALS
    | IDENTITY
    | OVERRIDES
    | _names("host forwarded content-length content-type content-encoding content-range range accept date")
    | _names("idempotency-key retry-after set-cookie cache-control vary etag expires www-authenticate location")
    | _names("strict-transport-security content-security-policy x-content-type-options x-frame-options")
)
PROTECTED_PREFIXES = (
    *IDENTITY_PREFIXES,
    *(b"x-tidegate-", b"openai-", b"anthropic-", b"x-ratelimit-", b"access-control-"),
)

AI_REQUEST = _names("content-type accept accept-language user-agent idempotency-key traceparent tracestate")
AI_REQUEST_PREFIXES = {"openai": (b"openai-", b"x-stainless-"), "anthropic": (b"anthropic-", b"x-stainless-")}
AI_RESPONSE = _names(
    "content-type content-length content-encoding content-disposition content-language content-range accept-ranges "
    "retry-after retry-after-ms x-should-retry cache-control etag last-modified vary"
)
AI_RESPONSE_PREFIXES = (b"openai-", b"anthropic-")
OURS_DOWN = (b"x-tidegate-", b"x-ratelimit-", b"anthropic-ratelimit-", b"x-upstream-")

DROP, KEEP, NOTE = range(3)  # verdicts
USUAL_OPTIONS = (b"keep-alive", b"close")
KINDS = ("openai", "anthropic", "http")

Picker = Callable[[Sequence[Header]], list[Header]]
_NAME = itemgetter(0)
_MOST_NAMES = 64  # of a head that is remembered


class Rules:
    """Verdicts by header name in lower case; a new name is decided once and remembered, up to a bound. So is what they
    come to for all names of one head: most heads are like others."""

    remembered_names = 512
    remembered_sets = 512

    def __init__(self, kind: str) -> None:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not a kind of upstream; these are: {', '.join(KINDS)}")
        self.kind = kind
        self._kept: set[bytes] = set()
        self._settled: set[bytes] = set()  # KEEP and DROP
        self._notable: set[bytes] = set()
        self._sets: dict[tuple[bytes, ...], tuple[Picker, Picker]] = {}

    def decide(self, name: bytes) -> int:
        """The verdict on a name."""
        raise NotImplementedError

    def split(self, raw: Sequence[Header]) -> tuple[list[Header], list[Header]]:
        """(headers to keep, headers to look at again)."""
        names = tuple(map(_NAME, raw))
        known = self._sets.get(names)
        if known is not None:
            return known[0](raw), known[1](raw)
        kept, noted = self._split(raw)
        if len(self._sets) < self.remembered_sets and len(names) <= _MOST_NAMES:
            places = {header: place for place, header in enumerate(names)}
            if len(places) == len(names):  # a repeated one is looked for each time
                self._sets[names] = _picker([places[name] for name, _ in kept]), _picker([places[n] for n, _ in noted])
        return kept, noted

    def _split(self, raw: Sequence[Header]) -> tuple[list[Header], list[Header]]:
        settled, notable = self._settled, self._notable
        noted = [header for header in raw if header[0] not in settled]
        new = [name for name, _ in noted if name not in notable]
        if new:
            self._learn(new, raw)
            noted = [header for header in raw if header[0] in notable]
        kept = self._kept
        return [header for header in raw if header[0] in kept], noted

    def _learn(self, names: list[bytes], raw: Sequence[Header]) -> None:
        if len(self._settled) + len(self._notable) >= self.remembered_names:
            for known in (self._kept, self._settled, self._notable):
                known.clear()
            names = [name for name, _ in raw]
        for name in names:
            verdict = self.decide(name)
            (self._notable if verdict == NOTE else self._settled).add(name)
            if verdict == KEEP:
                self._kept.add(name)


def _picker(places: list[int]) -> Picker:
    """Gives a new list of what stands at these places."""
    if not places:
        return lambda raw: []
    if len(places) == 1:
        return lambda raw: [raw[places[0]]]
    pick = itemgetter(*places)
    return lambda raw: list(pick(raw))


class RequestRules(Rules):
    """What goes up to upstreams of one kind ("openai", "anthropic", "http")."""

    def decide(self, name: bytes) -> int:
        """NOTE: the header is about the way here, and `request_headers` looks at it again."""
        if name == b"connection":
            return NOTE
        if name in HOP_BY_HOP or name in CREDENTIALS or name in OVERRIDES or b"_" in name:
            return DROP
        if self.kind != "http":
            known = name in AI_REQUEST or name.startswith(AI_REQUEST_PREFIXES[self.kind])
            return KEEP if known and name not in OPERATOR else DROP
        if name in IDENTITY or name.startswith(IDENTITY_PREFIXES) or name == b"host":
            return NOTE
        if name in (b"content-length", b"forwarded") or name in REQUEST_IDS or name.startswith(b"x-tidegate-"):
            return DROP
        return KEEP


class ResponseRules(Rules):
    """What comes down from upstreams of one kind."""

    def decide(self, name: bytes) -> int:
        """NOTE: `response_headers` looks at the header again."""
        if name == b"connection" or name in REQUEST_IDS:
            return NOTE
        if name in HOP_BY_HOP or name in STEERING or name in OPERATOR or name.startswith(OURS_DOWN):
            return DROP
        if name.startswith(STEERING_PREFIXES):
            return DROP
        if self.kind == "http" or name in AI_RESPONSE or name.startswith(AI_RESPONSE_PREFIXES):
            return KEEP
        return DROP


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from: the peer's address, the scheme it used, and whether the peer is a trusted proxy."""

    address: bytes
    scheme: bytes = b"http"
    trusted: bool = False


def request_headers(
    raw: Sequence[Header], rules: RequestRules, origin: Origin, identity: Sequence[Header] = ()
) -> list[Header]:
    """The headers for the upstream, without host, framing and credentials: these belong to the upstream's client.

    `raw`: the request's headers, names in lower case. For an HTTP worker `identity` (who is calling, as the gateway
    found out) and `x-forwarded-{for,proto,host}` are added; what the client said of these counts only if its peer is a
    trusted proxy. An AI provider gets neither.
    """
    kept, noted = rules.split(raw)
    if noted:
        kept = _without_named(kept, noted)
    if rules.kind == "http":
        kept += _forwarded(noted, origin)
        kept += identity
    return kept


def response_headers(raw: Sequence[Header], rules: ResponseRules) -> list[Header]:
    """The headers for the client, names in lower case; the upstream's request id becomes x-upstream-request-id."""
    kept, noted = rules.split(raw)
    if not noted:
        return kept
    kept = _without_named(kept, noted)
    return kept + [(b"x-upstream-request-id", value) for name, value in noted if name in REQUEST_IDS]


def _without_named(kept: list[Header], noted: list[Header]) -> list[Header]:
    """What is left when the headers that Connection names are dropped, so far as it may name them."""
    if all(name != b"connection" or value in USUAL_OPTIONS for name, value in noted):
        return kept
    options = connection_options(noted)
    named = {name for name in options if name not in PROTECTED and not name.startswith(PROTECTED_PREFIXES)}
    return [header for header in kept if header[0] not in named]


def _forwarded(noted: list[Header], origin: Origin) -> list[Header]:
    """x-forwarded-*, and from a trusted proxy what else it says about the client."""
    given = dict(noted)
    host = given.get(b"host", b"")
    if not origin.trusted:
        chain, proto = origin.address, origin.scheme
        extra: list[Header] = []
    else:
        hops = [value for name, value in noted if name == b"x-forwarded-for" and value]
        chain, proto = b", ".join([*hops, origin.address]), given.get(b"x-forwarded-proto", origin.scheme)
        host = given.get(b"x-forwarded-host", host)
        extra = [header for header in noted if header[0] not in WRITTEN_ANEW]
    told = [*extra, (b"x-forwarded-for", chain), (b"x-forwarded-proto", proto)]
    return [*told, (b"x-forwarded-host", host)] if host else told  # HTTP/1.0 needs no Host
