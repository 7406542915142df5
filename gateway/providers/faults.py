"""Which failures of an upstream count, and for what: one table a kind. docs/resilience.md shows it, a test compares.

same     may the same target be tried again, after a pause and within the retry budget
other    may another target be tried: "free", "budget" (within the retry budget where the other one mostly says that it
         is overloaded too: passed on to it, overload would spread), "no"
breaker  whose circuit breaker it counts against: "target", "provider" (whatever the model), "none"
work     what the upstream may have done: "none" (nothing was handled), "unpaid" (handled, not billed), "paid"

Where work may have been done, a call is repeated only if it is safe to: see `may_repeat`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from gateway.upstream.base import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    FirstByteTimeout,
    IdleTimeout,
    PoolTimeout,
    ProtocolError,
    UpstreamError,
)

if TYPE_CHECKING:
    from gateway.call import Call

Same = Literal["yes", "no"]
Other = Literal["free", "budget", "no"]
Counts = Literal["target", "provider", "none"]
Work = Literal["none", "unpaid", "paid"]


class Fault(NamedTuple):
    """One row: a failure by its name, and what follows from it."""

    name: str
    same: Same
    other: Other
    breaker: Counts
    work: Work


# fmt: off
#: OpenAI's API and Anthropic's. The SDKs of both try again after 408, 409, 429, 5xx, time-outs and lost connections.
_AI = (
    #     failure               same   other     breaker     work
    Fault("connect_failed",     "yes", "free",   "provider", "none"),    # refused, unreachable, no such name, TLS
    Fault("connect_timeout",    "no",  "free",   "provider", "none"),
    Fault("pool_timeout",       "no",  "budget", "none",     "none"),    # our own connections are all busy
    Fault("unsent",             "yes", "free",   "none",     "none"),    # broke before a byte of the request was sent
    Fault("reset",              "yes", "free",   "target",   "paid"),    # no answer to a request that was sent
    Fault("garbage",            "yes", "free",   "target",   "paid"),    # an answer that is not HTTP
    Fault("first_byte_timeout", "no",  "free",   "target",   "paid"),
    Fault("idle_timeout",       "no",  "free",   "target",   "paid"),    # silence before anything was passed on
    Fault("total_timeout",      "no",  "no",     "target",   "paid"),
    Fault("deadline",           "no",  "no",     "none",     "paid"),    # the client's own time was up
    Fault("cut_body",           "yes", "free",   "target",   "paid"),    # a plain answer broke off
    Fault("cut_stream",         "yes", "free",   "target",   "paid"),    # a stream broke off before any content
    Fault("overloaded",         "yes", "budget", "target",   "none"),    # so says a 200, before any content
    Fault("error_body",         "yes", "free",   "target",   "unpaid"),  # an error in a 200
    Fault("html",               "yes", "free",   "target",   "paid"),    # HTML or the like where JSON belongs
    Fault("unreadable",         "no",  "no",     "target",   "paid"),    # a 200 that is no reply of its route
    Fault("401",                "no",  "free",   "target",   "none"),    # our own credential was refused
    Fault("407",                "no",  "free",   "target",   "none"),
    Fault("403",                "no",  "free",   "none",     "none"),
    Fault("404",                "no",  "free",   "none",     "none"),    # the model is not there (any more)
    Fault("408",                "yes", "free",   "none",     "unpaid"),
    Fault("409",                "yes", "no",     "none",     "unpaid"),
    Fault("429",                "yes", "budget", "none",     "none"),
    Fault("quota",              "no",  "free",   "none",     "none"),    # a 429 that waiting won't mend: no money left
    Fault("4xx",                "no",  "no",     "none",     "none"),    # the caller's own mistake
    Fault("500",                "yes", "free",   "target",   "unpaid"),
    Fault("502",                "yes", "free",   "target",   "unpaid"),
    Fault("503",                "yes", "budget", "target",   "none"),
    Fault("504",                "no",  "free",   "target",   "paid"),
    Fault("529",                "yes", "budget", "target",   "none"),    # Anthropic: overloaded
    Fault("5xx",                "yes", "free",   "target",   "unpaid"),
)

#: Workers: any HTTP service. What it answers is its own affair, but for the statuses that proxies in front of it use.
_HTTP = (
    #     failure               same   other     breaker     work
    Fault("connect_failed",     "yes", "free",   "provider", "none"),
    Fault("connect_timeout",    "no",  "free",   "provider", "none"),
    Fault("pool_timeout",       "no",  "budget", "none",     "none"),
    Fault("unsent",             "yes", "free",   "none",     "none"),
    Fault("reset",              "yes", "free",   "target",   "paid"),
    Fault("garbage",            "yes", "free",   "target",   "paid"),
    Fault("first_byte_timeout", "no",  "free",   "target",   "paid"),
    Fault("idle_timeout",       "no",  "free",   "target",   "paid"),
    Fault("total_timeout",      "no",  "no",     "target",   "paid"),
    Fault("deadline",           "no",  "no",     "none",     "paid"),
    Fault("cut_body",           "yes", "free",   "target",   "paid"),
    Fault("429",                "yes", "budget", "none",     "unpaid"),
    Fault("4xx",                "no",  "no",     "none",     "none"),
    Fault("500",                "no",  "no",     "target",   "paid"),
    Fault("502",                "yes", "free",   "target",   "paid"),
    Fault("503",                "yes", "budget", "target",   "unpaid"),
    Fault("504",                "yes", "free",   "target",   "paid"),
    Fault("5xx",                "no",  "no",     "target",   "paid"),
)
# fmt: on

#: The tables by provider kind, and in each the rows by name.
FAULTS: dict[str, dict[str, Fault]] = {
    "openai": {fault.name: fault for fault in _AI},
    "anthropic": {fault.name: fault for fault in _AI},
    "http": {fault.name: fault for fault in _HTTP},
}

_ERRORS: dict[type[UpstreamError], str] = {
    ConnectFailed: "connect_failed",
    ConnectTimeout: "connect_timeout",
    PoolTimeout: "pool_timeout",
    FirstByteTimeout: "first_byte_timeout",
    IdleTimeout: "idle_timeout",
    ProtocolError: "garbage",
    ConnectionLost: "reset",
}

#: Methods that do the same when they come twice (RFC 9110 section 9.2.2).
IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))


def of_error(kind: str, error: UpstreamError) -> Fault:
    """The row of an exchange that failed."""
    name = _ERRORS.get(type(error), "total_timeout")
    if name == "reset" and not error.sent:
        name = "unsent"
    elif name == "reset" and error.phase == "body":
        name = "cut_body"
    return FAULTS[kind][name]


def of_status(kind: str, status: int) -> Fault:
    """The row of an answer from 400 on."""
    rows = FAULTS[kind]
    found = rows.get(str(status))
    return rows["5xx" if status >= 500 else "4xx"] if found is None else found


def may_repeat(call: Call, fault: Fault) -> bool:
    """Whether sending the call once more can do no harm. What makes models work is repeated as the SDKs would; what
    makes objects or acts (files, batches, workers) only where nothing was done, or twice is the same as once."""
    if fault.work == "none" or call.method in IDEMPOTENT or b"idempotency-key" in call.headers:
        return True
    return call.route.model
