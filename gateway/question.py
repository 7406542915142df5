"""What a call asks, apart from who asks and how it is carried; and what of its outcome is an answer to keep.

Shared by all policies that give an answer again (../docs/cache.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

import orjson

from gateway.answers import Answer
from gateway.call import Call, Outcome
from gateway.clients import Client
from gateway.jsonbody import is_exact
from gateway.soundness import is_answer, is_whole_stream
from gateway.targets import Target

_NS = 1_000_000_000
_NAME = itemgetter(0)

#: Routes whose answers depend on nothing but what was sent.
ROUTES = frozenset(("chat", "completions", "responses", "embeddings", "moderations", "messages", "count_tokens"))
#: Of those, the ones that draw lots unless the temperature is 0; on them a cheaper model may stand in.
TEXTS = frozenset(("chat", "completions", "responses", "messages"))

#: Request headers that say nothing of what is asked: who asks, from where, how it is carried.
_NO_QUESTION = frozenset(
    b"accept-encoding accept-language authorization baggage cache-control connection content-length cookie date "
    b"expect forwarded host idempotency-key keep-alive origin pragma priority proxy-authorization referer te "
    b"traceparent tracestate trailer transfer-encoding upgrade user-agent via x-api-key x-client-id x-real-ip "
    b"x-request-id".split()
)
_NO_QUESTION_PREFIXES = (b"x-stainless-", b"x-tidegate-", b"x-forwarded-", b"sec-")

#: Headers of the first answer that are not true of a later one, or are secrets.
_NOT_REPLAYED = frozenset(
    (b"content-length", b"date", b"age", b"retry-after", b"retry-after-ms", b"set-cookie", b"x-upstream-request-id")
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller's cache-control says."""

    look: bool = True  # no-cache: do not look
    keep: bool = True  # no-store: do not keep
    max_age_s: int | None = None


NO_WISH = Wish()


def wish_of(call: Call) -> Wish:
    """Cache-Control of a request (RFC 9111, 5.2.1): no-store, no-cache, max-age; what is not known is ignored. Several
    such headers are one list."""
    if b"cache-control" not in call.headers:
        return NO_WISH
    header = b",".join([value for name, value in call.raw_headers if name == b"cache-control"])
    look, keep, max_age_s = True, True, None
    for part in header.lower().split(b","):
        name, _, value = part.strip().partition(b"=")
        if name == b"no-store":
            look = keep = False
        elif name == b"no-cache":
            look = False
        elif name == b"max-age" and value.strip(b'"').isdigit():
            age_s = int(value.strip(b'"')[:10])
            max_age_s = age_s if max_age_s is None else min(age_s, max_age_s)
            look = look and max_age_s > 0
    return Wish(look, keep, max_age_s)


def stands_alone(call: Call, *, sampled: bool) -> bool:
    """Whether the answer depends on the question alone, and makes nothing that stays at the provider. `sampled`: also
    where lots are drawn."""
    body, route = call.json, call.route.name
    if call.facts.unbounded or call.facts.object_ids or body.get("background"):
        return False
    if route == "responses" and body.get("store") is not False:
        return False
    if route == "chat" and body.get("store"):
        return False
    return sampled or not draws_lots(call)


def draws_lots(call: Call) -> bool:
    """Whether the same question may be answered otherwise; where no temperature is said, providers take 1."""
    temperature = call.json.get("temperature")
    return call.route.name in TEXTS and (isinstance(temperature, bool) or temperature != 0)


def digest_of(call: Call, share: Literal["client", "org"], body: object) -> bytes:
    """A digest of all that the answer depends on: whose it is, where it goes, its headers, and `body` of its JSON."""
    head = _head(call, share)
    told = call.memo.get("told")
    if told is None:
        told = call.memo["told"] = _told(call)
    for one in call.targets:
        if one.provider.passes:
            told += b"".join([b"\0\0%b\0%b" % said for said in call.raw_headers if said[0] in one.provider.passes])
    asked = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    raw = call.body or b""
    if not is_exact(raw):
        asked += raw  # what floats make equal the provider sees digit for digit
    return hashlib.sha256(b"\0\0".join((head, told, asked))).digest()[:24]


def _head(call: Call, share: Literal["client", "org"]) -> bytes:
    """Whose it is, and where it goes; kept with the call's head, as below."""
    known: tuple[Client, str, list[Target], bytes] | None = call.memo.get("head")
    if known is not None and known[0] is call.client and known[1] == share and known[2] == call.targets:
        return known[3]
    owner = call.client.org if share == "org" else f"{call.client.org}\0{call.client.id}"
    places = sorted(map(_place, call.targets))
    head = orjson.dumps([owner, share, places])  # sorted, since the order is that of the moment (balance, breakers)
    call.memo["head"] = call.client, share, list(call.targets), head
    return head


def _place(target: Target) -> str:
    """Where it goes, and what is put into its body on the way."""
    cap = target.default_output_tokens if target.enforce_output_cap else ""
    return f"{target.provider.answers_as}\0{target.upstream_model}\0{target.model}\0{cap}"


def _told(call: Call) -> bytes:
    """What a call asks in its head, which is kept with it: the next one of the same client is mostly alike."""
    said = [one for one in call.raw_headers if one[0] not in _NO_QUESTION]
    said.sort(key=_NAME)  # by name alone: which of several of a name comes first may matter
    headers = [b"%b\0%b" % one for one in said if not one[0].startswith(_NO_QUESTION_PREFIXES)]
    return b"\0\0".join((call.dialect.encode(), call.path, call.query, *headers))


def answer_of(
    call: Call, key: bytes, outcome: Outcome, targets: Sequence[Target], made_ns: int, ttl_s: int
) -> Answer | None:
    """What is kept of the outcome, if it is one to keep: complete, a success, and of a model of `targets`: those that
    the call was asked of. `made_ns` is monotonic."""
    target, chunks = outcome.target, outcome.chunks
    if outcome.kind != "served" or not outcome.complete or outcome.status != 200 or target is None or not chunks:
        return None
    if all(one.model != target.model for one in targets):
        return None
    headers = tuple(header for header in outcome.headers if header[0] not in _NOT_REPLAYED)
    is_stream = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
    if any(name == b"content-encoding" for name, _ in headers):
        return None
    whole = b"".join(chunks)
    if not (is_whole_stream if is_stream else is_answer)(call.route.name, whole):
        return None
    return Answer(
        key=key.hex(),
        org=call.client.org,
        client=call.client.id,
        model=call.facts.model or "",
        served=target.model,
        provider=target.provider.name,
        call=call.id,
        status=outcome.status,
        headers=(*headers, (b"x-tidegate-model", target.model.encode("ascii", "replace"))),
        is_stream=is_stream,
        chunks=chunks if is_stream else (whole,),
        cost_pusd=sum([row.cost_pusd for row in call.attempts]),
        made_ns=made_ns,
        expires_ns=made_ns + ttl_s * _NS,
        usage=outcome.usage,
    )
