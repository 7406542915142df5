"""Knows the bytes of an answer: status lines, the headers that the real providers send, chunk frames."""

from __future__ import annotations

import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.demo.exchange import Exchange, Reply
    from gateway.demo.script import Script

LAST_CHUNK = b"0\r\n\r\n"
# What a generous account is told; the script's keys replace single figures.
LIMITS = {
    "limit_requests": "30000",
    "limit_tokens": "150000000",
    "remaining_requests": "29999",
    "remaining_tokens": "149999000",
    "reset_requests": "2ms",
    "reset_tokens": "0s",
}
REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}
BODILESS = frozenset({204, 304})


class Heads:
    """Makes the heads of answers; what stays the same is made once, the date once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._openai = b""
        self._anthropic = b""
        self._lines: dict[tuple[int, bytes], bytes] = {}

    def head(self, exchange: Exchange, reply: Reply, framing: bytes, close: bool) -> bytes:
        """Everything before the body, the empty line included. `framing` is the line that says how the body ends."""
        lines = [self._line(reply.status, reply.content_type), framing, self._standard(exchange)]
        lines += reply.headers
        if exchange.nonce:
            lines.append(b"x-nonce: %b\r\n" % exchange.nonce)
        if close:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _line(self, status: int, content_type: bytes) -> bytes:
        key = (status, content_type)
        found = self._lines.get(key)
        if found is None:
            reason = REASONS.get(status, "Unknown").encode()
            found = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n" % (status, reason, content_type)
            self._lines[key] = found
        return found

    def _standard(self, exchange: Exchange) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._refresh(now)
        request_id = exchange.id.encode()
        limits = exchange.script.limits
        if exchange.anthropic:
            fixed = self._anthropic if not limits else self._base(now) + anthropic_limits(limits, now)
            return fixed + b"request-id: %b\r\n" % request_id
        fixed = self._openai if not limits else self._base(now) + OPENAI + openai_limits(limits)
        took_ms = 1 if exchange.script.latency_ms is None else int(exchange.script.latency_ms)
        return fixed + b"x-request-id: %b\r\nopenai-processing-ms: %d\r\n" % (request_id, took_ms)

    def _base(self, now: int) -> bytes:
        return b"date: %b\r\nserver: tidegate-demo\r\n" % formatdate(now, usegmt=True).encode()

    def _refresh(self, now: int) -> None:
        self._second = now
        self._openai = self._base(now) + OPENAI + openai_limits({})
        self._anthropic = self._base(now) + anthropic_limits({}, now)


OPENAI = b"openai-organization: tidegate-demo\r\nopenai-version: 2020-10-01\r\n"


def openai_limits(changed: dict[str, str]) -> bytes:
    """OpenAI's rate-limit headers: resets are durations."""
    told = LIMITS | changed
    return b"".join(b"x-ratelimit-%b: %b\r\n" % (name.replace("_", "-").encode(), told[name].encode()) for name in told)


def anthropic_limits(changed: dict[str, str], now: int) -> bytes:
    """Anthropic's rate-limit headers: resets are RFC 3339 dates, unless the script gives its own text."""
    reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 1))
    told = LIMITS | {"reset_requests": reset, "reset_tokens": reset} | changed
    lines = [b"anthropic-organization-id: 00000000-0000-4000-8000-000000000000\r\n"]
    for name, value in told.items():
        part, _, unit = name.partition("_")
        lines.append(f"anthropic-ratelimit-{unit}-{part}: {value}\r\n".encode())
    return b"".join(lines)


def extra_headers(script: Script) -> list[bytes]:
    """The header lines that a script adds."""
    lines = [f"{line.strip()}\r\n".encode("latin-1") for line in script.header]
    if script.retry_after is not None:
        lines.append(b"retry-after: %b\r\n" % retry_after(script.retry_after).encode("latin-1"))
    if script.retry_after_ms is not None:
        lines.append(b"retry-after-ms: %b\r\n" % script.retry_after_ms.encode("latin-1"))
    if script.should_retry is not None:
        lines.append(b"x-should-retry: %b\r\n" % script.should_retry.encode("latin-1"))
    return lines


def retry_after(value: str) -> str:
    """The header's text; `date:SECONDS` becomes the date that many seconds from now."""
    word, _, seconds = value.partition(":")
    if word == "date" and seconds.lstrip("-").isdigit():
        return formatdate(time.time() + int(seconds), usegmt=True)
    return value


def frame(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def frames(events: Iterable[bytes]) -> bytes:
    """A whole chunked body, one chunk an event."""
    return b"".join([b"%x\r\n%b\r\n" % (len(event), event) for event in events]) + LAST_CHUNK
