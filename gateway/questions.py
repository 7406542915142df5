"""What advice needs to know of a call, and nothing more: a keyed digest of its question, and words for its wishes.

No text of a question is kept, and without the pepper nobody can find out whether a known one was asked.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

import orjson

from gateway.abilities import wanted_of
from gateway.call import Call
from gateway.errors import GatewayError
from gateway.jsonbody import is_exact
from gateway.question import ROUTES, TEXTS, draws_lots, stands_alone
from gateway.wishes import ACCURACY, ALLOW_DOWNGRADE, PRIORITY, accuracy_of, allows_downgrade, urgency_of

#: What a digest begins with: the same question has the same answer, or the provider draws lots.
FIXED, SAMPLED = "=", "~"
_HEX = 32  # digits of a digest that are kept
NOTHING: tuple[str | None, str | None] = (None, None)


class Questions:
    """Digests are comparable within an org, as long as the pepper stays. About 5 us a call of 1 KB."""

    def __init__(self, pepper: bytes, is_on: bool = True) -> None:
        self._keyed = hmac.new(hmac.digest(pepper, b"tidegate questions", "sha256"), digestmod=sha256)
        self._is_on = is_on

    def of(self, call: Call) -> tuple[str | None, str | None]:
        """The digest, None where the answer depends on more than the question; and the wishes. Nothing of what is not
        JSON."""
        body = call.json
        if not self._is_on or call.route.name not in ROUTES or call.method != "POST" or type(body) is not dict:
            return NOTHING
        source = call.source
        question = None if source is None else source.question
        if question is None and stands_alone(call, sampled=True):
            question = self._digest(call)
            if source is not None:
                source.question = question
        return question, _traits(call) if call.reply is None else None

    def _digest(self, call: Call) -> str:
        body = call.json
        if "stream" in body:  # however it is to come
            body = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
        digest = self._keyed.copy()
        digest.update(b"\0".join((call.client.org.encode(), call.dialect.encode(), call.path, call.query, b"")))
        digest.update(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
        if call.body is not None and not is_exact(call.body):
            digest.update(call.body)  # as in the cache's key: floats make equal what is not
        return (SAMPLED if draws_lots(call) else FIXED) + digest.hexdigest()[:_HEX]


def _traits(call: Call) -> str | None:
    """Words, of what a downgrade and a later hour depend on; None where there is nothing to say."""
    words: list[str] = []
    body, headers = call.json, call.headers
    if call.route.name in TEXTS:
        words += wanted_of(body)
    if call.facts.unbounded or call.facts.object_ids or call.facts.more_models:
        words.append("unbounded")
    if "metadata" in body or PRIORITY in headers or ACCURACY in headers or ALLOW_DOWNGRADE in headers:
        words += _wishes(call)
    return " ".join(words) if words else None


def _wishes(call: Call) -> list[str]:
    try:
        urgency, accuracy, allowed = urgency_of(call), accuracy_of(call), allows_downgrade(call)
    except GatewayError:
        return []  # such a call was refused
    words: list[str] = [urgency] if urgency in ("urgent", "low") else []
    if accuracy == "high":
        words.append("exact")
    if allowed is not None:
        words.append("allowed" if allowed else "kept")
    return words
