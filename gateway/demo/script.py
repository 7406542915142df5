"""Knows what a call was asked to do wrong: the faults of one answer, from the header `x-fake` or a rule of the plan.

    x-fake: status=429; retry-after=2
    x-fake: chunks=200; chunk-ms=5; die=after:20

Keys may be spelt with `-` or `_`; a key without a value is on. An unknown key or a bad value is an error, so that no
test passes because its fault was misspelt. docs/fake-provider.md lists every key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

UsageMode = Literal["full", "no", "null", "zero"]


class Cut(NamedTuple):
    """Where an answer ends before its time, and how.

    kind: reset (TCP RST), die (FIN) or stall (silence, the socket stays open).
    at: head (before any byte), body (after the first event, or half of a plain body), or a number of events (of bytes,
        where the body is plain).
    """

    kind: Literal["reset", "die", "stall"]
    at: Literal["head", "body"] | int


@dataclass(slots=True, eq=False)
class Script:
    """The faults of one answer; the fields are the keys of `x-fake`."""

    # timing
    latency_ms: float | None = None
    chunk_ms: float | None = None
    # the answer's kind
    status: int | None = None
    code: str | None = None
    retry_after: str | None = None
    retry_after_ms: str | None = None
    should_retry: str | None = None
    html: bool = False
    errorbody: bool = False
    badjson: bool = False
    gzip: bool = False
    overloaded: int | None = None
    truncate: int | None = None  # events (bytes of a plain body), the framing then right
    # its size and its bill
    chunks: int | None = None
    input: int | None = None
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    usage: UsageMode = "full"
    huge_event: int | None = None
    # its bytes on the wire
    chunk_bytes: int | None = None
    slice: int | None = None
    crlf: bool = False
    u2028: bool = False
    cut: Cut | None = None
    halfopen: bool = False
    garbage: bool = False
    wrong_length: int = 0
    early: str | None = None
    close: bool = False
    # its headers
    limits: dict[str, str] = field(default_factory=dict)
    header: list[str] = field(default_factory=list)

    @property
    def shapes(self) -> bool:
        """True where the answer's status, body or events are not what the route made."""
        return (
            self.status is not None
            or self.html
            or self.errorbody
            or self.badjson
            or self.gzip
            or self.overloaded is not None
            or self.truncate is not None
            or self.huge_event is not None
            or self.crlf
        )

    @property
    def delays(self) -> bool:
        """True where the answer cannot be written at once and whole."""
        return bool(
            self.latency_ms
            or self.chunk_ms
            or self.cut is not None
            or self.halfopen
            or self.garbage
            or self.slice
            or self.chunk_bytes
            or self.wrong_length
        )


PLAIN = Script()
LIMITS = frozenset(f"{part}_{unit}" for part in ("limit", "remaining", "reset") for unit in ("requests", "tokens"))


def parse_text(text: str) -> Script:
    """Reads `key=value; key=value`. Raises ValueError where a key or a value is wrong."""
    script = Script()
    for part in text.split(";"):
        key, _, value = part.strip().partition("=")
        if key:
            apply(script, key, value.strip())
    return script


def parse(source: str | Mapping[str, Any]) -> Script:
    """Reads a plan's faults, a text like the header's or a table of the same keys. Raises ValueError."""
    if isinstance(source, str):
        return parse_text(source)
    script = Script()
    for key, value in source.items():
        if value is not False and value is not None:
            apply(script, key, "" if value is True else str(value))
    return script


def apply(script: Script, key: str, value: str) -> None:
    """Sets one key of `script`. Raises ValueError."""
    name = key.strip().lower().replace("-", "_")
    if name in LIMITS:
        script.limits[name] = value
        return
    setter = KEYS.get(name)
    if setter is None:
        raise ValueError(f"x-fake: unknown key {key!r}; known are {', '.join(sorted({*KEYS, *LIMITS}))}")
    try:
        setter(script, name, value)
    except ValueError as error:
        raise ValueError(f"x-fake: {key}={value}: {error}") from None


Setter = Callable[[Script, str, str], None]


def _text(script: Script, name: str, value: str) -> None:
    setattr(script, name, value)


def _flag(script: Script, name: str, value: str) -> None:
    setattr(script, name, value.lower() not in ("0", "false", "no"))


def _count(script: Script, name: str, value: str) -> None:
    number = int(value)
    if number < 0:
        raise ValueError("must not be negative")
    setattr(script, name, number)


def _size(script: Script, name: str, value: str) -> None:
    number = int(value) if value else 1
    if number < 1:
        raise ValueError("must be at least 1")
    setattr(script, name, number)


def _milliseconds(script: Script, name: str, value: str) -> None:
    number = float(value)
    if not 0 <= number < 3_600_000:
        raise ValueError("must be from 0 to an hour")
    setattr(script, name, number)


def _status(script: Script, name: str, value: str) -> None:
    number = int(value)
    if not 200 <= number <= 599:
        raise ValueError("must be from 200 to 599")
    script.status = number


def _cut(script: Script, name: str, value: str) -> None:
    kinds: dict[str, Literal["reset", "die", "stall"]] = {"reset": "reset", "die": "die", "stall": "stall"}
    script.cut = Cut(kinds[name], _place(value))


def _place(value: str) -> Literal["head", "body"] | int:
    if value in ("head", ""):
        return "head"
    if value == "body":
        return "body"
    return _after(value)


def _after(value: str) -> int:
    word, _, number = value.rpartition(":")
    if word not in ("", "after") or not number.isdigit():
        raise ValueError("must be head, body or after:N")
    return int(number)


def _overloaded(script: Script, name: str, value: str) -> None:
    script.overloaded = 0 if value.lower() in ("", "1", "true") else _after(value)


def _usage(script: Script, name: str, value: str) -> None:
    mode: dict[str, UsageMode] = {"no_usage": "no", "null_usage": "null", "zero_usage": "zero"}
    script.usage = mode[name]


def _length(script: Script, name: str, value: str) -> None:
    script.wrong_length = {"long": 10, "short": -10}.get(value) or int(value)


def _early(script: Script, name: str, value: str) -> None:
    if value not in ("", "1", "close") and not value.isdigit():
        raise ValueError("must be a status or close")
    script.early = value or "1"


def _header(script: Script, name: str, value: str) -> None:
    if ":" not in value or "\r" in value or "\n" in value:
        raise ValueError("must be name: value")
    script.header.append(value)


KEYS: dict[str, Setter] = {
    **dict.fromkeys(("latency_ms", "chunk_ms"), _milliseconds),
    **dict.fromkeys(("code", "retry_after", "retry_after_ms", "should_retry"), _text),
    **dict.fromkeys(("html", "errorbody", "badjson", "gzip", "crlf", "u2028", "halfopen", "garbage", "close"), _flag),
    **dict.fromkeys(("chunks", "input", "cached", "cache_write", "reasoning", "truncate"), _count),
    **dict.fromkeys(("huge_event", "chunk_bytes", "slice"), _size),
    **dict.fromkeys(("no_usage", "null_usage", "zero_usage"), _usage),
    **dict.fromkeys(("reset", "die", "stall"), _cut),
    "status": _status,
    "overloaded": _overloaded,
    "wrong_length": _length,
    "early": _early,
    "header": _header,
}
