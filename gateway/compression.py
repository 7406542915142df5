"""Bodies made shorter: answers for clients that accept it, requests for workers that do. Long ones off the event loop.

Which bodies, and what becomes of their headers: ../docs/compression.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gateway.call import Call
from gateway.codings import Coding, Encoder, chosen, encoded, encoder
from gateway.downstream import Downstream
from gateway.errors import Header

#: A body up to this long takes less than half a millisecond, so it is encoded where it is.
AT_ONCE_BYTES = 32_768

#: A longer request is passed on as it comes instead of being gathered.
MOST_GATHERED = 8 * 1024 * 1024

#: Of a stream, less than this says nothing about what encoding would save.
SAMPLE_BYTES = 1_024

_THREADS = 2
_TYPES = (b"text/", b"application/json", b"application/xml", b"application/javascript", b"application/x-ndjson")
_MORE_TYPES = (b"application/jsonl", b"application/yaml", b"application/x-www-form-urlencoded", b"image/svg+xml")
_SUFFIXES = (b"+json", b"+xml", b"+yaml")
#: Headers of a request or an answer after which its bytes have to stay what they are: parts, digests of them.
_FIXED = frozenset(
    (b"content-encoding", b"content-range", b"content-digest", b"repr-digest", b"digest", b"content-md5", b"signature")
)


Read = Callable[[], Awaitable[bytes]]


async def ended() -> bytes:
    """Nothing more comes."""
    return b""


@dataclass(frozen=True, slots=True)
class CompressionRules:
    """[compression]. `answers`: what clients are offered, the favourite first."""

    answers: tuple[Coding, ...] = ("zstd", "gzip")
    min_bytes: int = 10_240
    min_saving_percent: int = 20
    streams: bool = False


class Compression:
    """Outlives configurations; `configure` gives it the one in force."""

    def __init__(self) -> None:
        self._rules = CompressionRules()
        self._threads: ThreadPoolExecutor | None = None
        self.min_bytes = self._rules.min_bytes  # shorter bodies need not be brought here

    def configure(self, rules: CompressionRules) -> None:
        self._rules = rules
        self.min_bytes = rules.min_bytes

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, call: Call, status: int, headers: list[Header], body: bytes) -> tuple[list[Header], bytes]:
        """A whole answer as it goes to this client, without its length."""
        if len(body) < self.min_bytes or not self._may(call, status, headers):
            return headers, body
        coding, is_plain_refused = self._chosen(call)
        shorter = None
        if coding is not None:
            shorter = await self._shorter(coding, body, 0 if is_plain_refused else self._rules.min_saving_percent)
        if coding is None or shorter is None:
            return _varying(headers), body
        return _of_encoded(headers, coding), shorter

    async def stream(
        self, call: Call, status: int, headers: list[Header], down: Downstream, first: bytes = b"", read: Read = ended
    ) -> tuple[list[Header], Downstream, bytes]:
        """An answer that goes out piece by piece: its headers, the way to take, and its `first` piece, which is read
        here where the length is known: what it saves decides. Each piece goes out as far as it came."""
        if not down.can_encode or not self._may(call, status, headers):
            return headers, down, first
        length = next((int(value) for name, value in headers if name == b"content-length"), None)
        if length is not None and length < self.min_bytes:
            return headers, down, first
        coding, is_plain_refused = self._chosen(call)
        if coding is None:
            return _varying(headers), down, first
        if length is not None and not first:
            first = await read()
        sample = first[:AT_ONCE_BYTES]
        percent = 0 if is_plain_refused else self._rules.min_saving_percent
        if len(sample) >= SAMPLE_BYTES and not _saves(encoded(coding, sample), sample, percent):
            return _varying(headers), down, first
        return _of_encoded(headers, coding), Encoded(down, encoder(coding)), first

    async def request(
        self, accepts: tuple[Coding, ...], headers: list[Header], body: bytes
    ) -> tuple[list[Header], bytes]:
        """A request's headers and body for an upstream that accepts these; the very same ones where that saves too
        little. The list is never changed."""
        if len(body) < self.min_bytes or not _is_free(headers):
            return headers, body
        shorter = await self._shorter(accepts[0], body, self._rules.min_saving_percent)
        if shorter is None:
            return headers, body
        return [*headers, (b"content-encoding", accepts[0].encode())], shorter

    def gathers(self, accepts: tuple[Coding, ...], headers: Sequence[Header], length: int | None) -> bool:
        """Whether a request of that length is to be read as a whole, so that it can be sent shorter."""
        return bool(accepts) and length is not None and self.min_bytes <= length <= MOST_GATHERED and _is_free(headers)

    def _may(self, call: Call, status: int, headers: list[Header]) -> bool:
        if not self._rules.answers or call.method == "HEAD" or status < 200 or status in (204, 206, 304):
            return False
        if not self._rules.streams and any(
            name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers
        ):
            return False
        return _is_free(headers)

    def _chosen(self, call: Call) -> tuple[Coding | None, bool]:
        """Kept with the request's head, which is the same for many calls."""
        known = call.memo.get("coding")
        if known is None or known[0] is not self._rules:
            accepts = b",".join([value for name, value in call.raw_headers if name == b"accept-encoding"])
            known = self._rules, chosen(accepts, self._rules.answers) if accepts else (None, False)
            call.memo["coding"] = known
        found: tuple[Coding | None, bool] = known[1]
        return found

    async def _shorter(self, coding: Coding, body: bytes, percent: int) -> bytes | None:
        """The encoded body, if that saves enough."""
        if len(body) <= AT_ONCE_BYTES:
            made = encoded(coding, body)
        else:
            made = await asyncio.get_running_loop().run_in_executor(self._pool(), encoded, coding, body)
        return made if _saves(made, body, percent) else None

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "tidegate-compress")
        return self._threads


class Encoded(Downstream):
    """An answer encoded on its way. The one below ends what this one began, whoever has to."""

    __slots__ = ("_below",)

    def __init__(self, below: Downstream, encoder: Encoder) -> None:
        super().__init__(below._send)
        self._below = below
        below.encoder = self.encoder = encoder

    async def start(self, status: int, headers: list[Header]) -> None:
        self.started = True
        await self._below.start(status, headers)

    async def chunk(self, data: bytes) -> None:
        assert self.encoder is not None
        await self._below.chunk(self.encoder.feed(data[:AT_ONCE_BYTES]))
        for start in range(AT_ONCE_BYTES, len(data), AT_ONCE_BYTES):
            await asyncio.sleep(0)  # others have their turn
            await self._below.chunk(self.encoder.feed(data[start : start + AT_ONCE_BYTES]))

    async def end(self, data: bytes = b"") -> None:
        self.finished = True
        await self._below.end(data)

    def cut(self) -> None:
        self._below.cut()


def _saves(made: bytes, body: bytes, percent: int) -> bool:
    return len(made) * 100 <= len(body) * (100 - percent)


def is_compressible(content_type: bytes) -> bool:
    """Text in the widest sense; what is packed already gains nothing."""
    kind = content_type.partition(b";")[0].strip().lower()
    return kind.startswith(_TYPES) or kind in _MORE_TYPES or kind.endswith(_SUFFIXES)


def _is_free(headers: Sequence[Header]) -> bool:
    """Whether a body with these headers may be encoded."""
    content_type = b""
    for name, value in headers:
        if name in _FIXED or (name == b"cache-control" and b"no-transform" in value.lower()):
            return name == b"content-encoding" and value.lower() in (b"", b"identity") and _is_free(_plain(headers))
        if name == b"content-type":
            content_type = value
    return is_compressible(content_type)


def _plain(headers: Sequence[Header]) -> list[Header]:
    return [header for header in headers if header[0] != b"content-encoding"]


def _varying(headers: list[Header]) -> list[Header]:
    """With accept-encoding in vary: another client may get other bytes."""
    for name, value in headers:
        if name == b"vary" and any(one.strip() in (b"*", b"accept-encoding") for one in value.lower().split(b",")):
            return headers
    return [*headers, (b"vary", b"accept-encoding")]


def _of_encoded(headers: list[Header], coding: Coding) -> list[Header]:
    """A strong etag names other bytes than these, so it becomes a weak one; parts of them can't be asked for."""
    kept = [header for header in headers if header[0] not in (b"content-length", b"content-encoding", b"accept-ranges")]
    changed = [(name, _weak(value)) if name == b"etag" else (name, value) for name, value in kept]
    return [*_varying(changed), (b"content-encoding", coding.encode())]


def _weak(etag: bytes) -> bytes:
    return etag if etag.startswith(b"W/") else b"W/" + etag
