"""Several credentials of one provider, each with the limits that its answers teach."""

from __future__ import annotations

import re
from datetime import datetime
from random import Random
from typing import Any

from gateway.errors import Header

#: How long a credential that was refused is left alone.
REFUSED_S = 60.0

#: As much as an answer may put a credential aside for.
_LONGEST_S = 3600.0

#: What OpenAI and Anthropic call what is left of a limit, and when that limit is whole again.
_LIMITS = (
    (b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
    (b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
    (b"anthropic-ratelimit-requests-remaining", b"anthropic-ratelimit-requests-reset"),
    (b"anthropic-ratelimit-tokens-remaining", b"anthropic-ratelimit-tokens-reset"),
    (b"anthropic-ratelimit-input-tokens-remaining", b"anthropic-ratelimit-input-tokens-reset"),
    (b"anthropic-ratelimit-output-tokens-remaining", b"anthropic-ratelimit-output-tokens-reset"),
)

#: OpenAI writes durations as Go does: `1s`, `6m0s`, `120ms`, `1h2m3.5s`.
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_UNITS_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Credential:
    """One key: the headers that carry it, the calls under way with it, and until when it rests, by upstream model."""

    __slots__ = ("aside_until_ns", "headers", "outstanding")

    def __init__(self, headers: list[Header]) -> None:
        self.headers = headers
        self.outstanding = 0
        self.aside_until_ns: dict[str, int] = {}  # "" for every model

    def rests(self, model: str, now_ns: int) -> bool:
        """Whether it should not be used now."""
        aside = self.aside_until_ns
        return bool(aside) and max(aside.get("", 0), aside.get(model, 0)) > now_ns

    def put_aside(self, model: str, until_ns: int) -> None:
        """Not used for that model before then, as long as another one can be. Models that are past are forgotten."""
        if len(self.aside_until_ns) >= 256:
            self.aside_until_ns.clear()
        self.aside_until_ns[model] = max(until_ns, self.aside_until_ns.get(model, 0))

    def shown(self, now_ns: int) -> dict[str, Any]:
        """How it stands, for pages; nothing of the key itself."""
        rests_s = max([0, *(until_ns - now_ns for until_ns in self.aside_until_ns.values())]) / 1e9
        return {"outstanding": self.outstanding, "rests_s": round(rests_s, 3)}

    def learn(self, headers: list[Header], model: str, now_ns: int, wall_ns: int) -> None:
        """A limit of which nothing is left puts it aside until that limit is whole again."""
        said = dict(headers)
        for remaining, reset in _LIMITS:
            if said.get(remaining) == b"0":
                wait_s = _until(said.get(reset, b""), wall_ns)
                if wait_s is not None:
                    self.put_aside(model, now_ns + round(min(wait_s, _LONGEST_S) * 1e9))


class Keyring:
    """The credentials of a provider, at least two."""

    __slots__ = ("_random", "credentials")

    def __init__(self, credentials: list[Credential], random: Random) -> None:
        self.credentials = credentials
        self._random = random

    def choose(self, model: str, now_ns: int, tried: list[Credential]) -> Credential | None:
        """The less busy one of two random ones that neither rest nor were tried; where all rest, the one that rests
        the shortest. None where all were tried."""
        left = [one for one in self.credentials if one not in tried]
        if not left:
            return None
        ready = [one for one in left if not one.rests(model, now_ns)]
        if not ready:
            rest = lambda one: max(one.aside_until_ns.get("", 0), one.aside_until_ns.get(model, 0))  # noqa: E731
            return None if tried else min(left, key=rest)
        if len(ready) == 1:
            return ready[0]
        one, other = self._random.sample(ready, 2)
        return one if one.outstanding <= other.outstanding else other


def _until(value: bytes, wall_ns: int) -> float | None:
    """Seconds until a reset: a duration such as `6m0s` (OpenAI), or a moment in RFC 3339 (Anthropic)."""
    text = value.decode("latin-1").strip()
    try:
        if "T" in text:
            return max(0.0, datetime.fromisoformat(text).timestamp() - wall_ns / 1e9)
    except (ValueError, OverflowError):
        return None
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
