"""Heads: how a request's head is written, and which reply heads are believed (RFC 9110 and 9112)."""

from __future__ import annotations

import re

from gateway.upstream.base import Headers, UpstreamRequest

# What the client itself decides; a caller's own version of them could contradict the framing.
CLIENT_FIELDS = frozenset(
    {b"host", b"connection", b"content-length", b"transfer-encoding", b"keep-alive", b"upgrade", b"te", b"trailer"}
)
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_JUDGED = _HOP_BY_HOP | {b"content-length"}
# A Connection field may name what else to drop, but not take away what a client needs to read the reply safely.
_END_TO_END = frozenset(
    {
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-security-policy",
        b"content-type",
        b"retry-after",
        b"set-cookie",
        b"strict-transport-security",
        b"vary",
        b"www-authenticate",
    }
)
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_ORIGIN_FORM = re.compile(rb"/[!-~]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NAME = re.compile(_TOKEN.pattern.encode())
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class HeadError(ValueError):
    """A reply head that can be read in two ways, or means something we did not ask for."""


class RequestHead:
    """Writes request heads for one origin; what never changes is joined once."""

    __slots__ = ("_after_target", "_verbs")

    def __init__(self, host_field: bytes) -> None:
        self._after_target = b" HTTP/1.1\r\nhost: " + host_field + b"\r\n"
        self._verbs: dict[str, bytes] = {}

    def write(self, request: UpstreamRequest) -> bytes:
        """The head, up to and with its empty line. ValueError where a value could end a line early."""
        return (request.lead or self.lead(request.method, request.target, request.headers)) + _framing(request)

    def lead(self, method: str, target: bytes, headers: Headers) -> bytes:
        """The head without what frames the body. ValueError as above."""
        verb = self._verbs.get(method)
        if verb is None:
            verb = self._verb(method)
        lines = [b": ".join(pair) for pair in headers if pair[0] not in CLIENT_FIELDS]
        lines.append(b"")
        head = verb + target + self._after_target + b"\r\n".join(lines)
        # Three scans in C for the whole head are cheaper than one test a field.
        ends = len(lines) + 1
        if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
            raise ValueError("a line break or NUL in the method, target or a header of an upstream request")
        if _ORIGIN_FORM.fullmatch(target) is None:
            raise ValueError("the target of an upstream request is not in origin form")
        return head

    def _verb(self, method: str) -> bytes:
        if _TOKEN.fullmatch(method) is None or method == "CONNECT":
            raise ValueError(f"method {method[:20]!r} cannot be sent upstream")
        verb = method.encode("ascii") + b" "
        if len(self._verbs) < 32:
            self._verbs[method] = verb
        return verb


def _framing(request: UpstreamRequest) -> bytes:
    """The head's end: what frames the body, and the empty line."""
    body = request.body
    if isinstance(body, bytes):
        return b"content-length: %d\r\n\r\n" % len(body)
    if body is None:
        return b"content-length: 0\r\n\r\n" if request.method in _WITH_BODY else b"\r\n"
    if request.content_length is None:
        return b"transfer-encoding: chunked\r\n\r\n"
    return b"content-length: %d\r\n\r\n" % request.content_length


def check_interim(status: int, headers: Headers) -> None:
    """A reply before the final one has no body (RFC 9110 15.2); where it announces one, HeadError."""
    if status < 100 or status == 101:
        raise HeadError(f"status {status} was not asked for")
    if any(name in (b"content-length", b"transfer-encoding") for name, _ in headers):
        raise HeadError("an interim reply with a body")


def check_fields(headers: Headers) -> None:
    """HeadError where a name or a value has a character that none may have: HTTP/2 frames carry any."""
    for name, value in headers:
        if _NAME.fullmatch(name) is None or _CONTROL.search(value) is not None:
            raise HeadError("a header with a character that none may have")


def read_head(status: int, headers: Headers) -> tuple[Headers, int | None, bool]:
    """Of a final reply: the fields to pass on, the declared length, whether it is chunked. Raises HeadError.

    `headers` have lower-case names. The parser refuses most bad framing by itself; what it lets pass is judged here:
    a transfer coding other than chunked (it would take the body for what follows until the end), and repetitions.
    """
    if status > 599:
        raise HeadError(f"status {status} is none that HTTP has")
    kept: Headers = []
    length: int | None = None
    coding: bytes | None = None
    named: set[bytes] = set()
    for pair in headers:
        name, value = pair
        if name not in _JUDGED:
            kept.append(pair)
        elif name == b"content-length":
            length = _length(value, length)
            kept.append(pair)
        elif name == b"transfer-encoding":
            if coding is not None or value.lower() != b"chunked":
                raise HeadError("a transfer coding other than chunked")
            coding = value
        elif name == b"connection":
            named.update(token.strip() for token in value.lower().split(b","))
    if coding is not None and length is not None:
        raise HeadError("both Content-Length and Transfer-Encoding")
    named -= _END_TO_END
    if status == 204 and length is not None:
        named.add(b"content-length")  # it would announce a body that cannot follow
        length = None
    if named:
        kept = [pair for pair in kept if pair[0] not in named]
    return kept, length, coding is not None


def _length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or before is not None:
        raise HeadError("a Content-Length that is repeated or not a number")
    return int(value)
