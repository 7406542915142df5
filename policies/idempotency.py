"""A repeated Idempotency-Key gets the first result; nothing is executed or charged twice (../docs/idempotency.md)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import msgspec
from pydantic import Field

from gateway.call import Call, Outcome, Reply
from gateway.errors import BadRequest, Conflict, Header
from gateway.interest import Interest
from gateway.policy import Gate, Policy
from gateway.recording import Room
from gateway.results import ResultRow, id_of

_MIB = 1_048_576
_LONGEST_KEY = 255

#: What an upstream says of the request itself, and would say again. Others (credentials, limits, its own failures) may
#: be different the next time, so that the next call with the key executes.
_FINAL = frozenset((400, 404, 405, 410, 411, 413, 414, 415, 416, 422))

#: Headers of the first answer that are not true of a later one, or are secrets.
_NOT_REPLAYED = frozenset(
    b"content-length date age retry-after retry-after-ms set-cookie x-tidegate-cache x-tidegate-cache-key "
    b"x-tidegate-cost x-tidegate-saved x-tidegate-similarity".split()
)
#: Of the headers that policies added to it, the one that says what the answer is.
_DISCLOSED = b"x-tidegate-downgraded-from"

Positive = Annotated[int, Field(ge=1)]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[list[tuple[bytes, bytes]], bool, list[bytes]]).decode


@dataclass
class Idempotency(Policy):
    """Keys are the client's own. While the first call runs, others with its key wait for its result."""

    keep_s: Positive = 86_400
    result_mib: Positive = 4  # a longer answer is not kept: its key is refused afterwards
    memory_mib: Positive = 64  # for the latest results; all are in the records

    after: ClassVar[tuple[str, ...]] = ("identity", "access")

    def provide(self, gate: Gate) -> None:
        self._results = gate.results
        self._results.max_bytes = self.memory_mib * _MIB
        self._wall_ns = gate.clock.wall_ns
        self._room = Room(self.memory_mib * _MIB)  # for answers that are under way

    def concerns(self, call: Call) -> bool:
        return b"idempotency-key" in call.headers and call.method == "POST"

    async def apply(self, call: Call) -> AsyncGenerator[None, Outcome]:
        id = _id(call, call.headers[b"idempotency-key"])
        fingerprint = await _fingerprint(call)
        while True:
            running = self._results.under_way(id)
            if running is None:
                call.interest = Interest()
                row = await self._results.begin(id, fingerprint, call.interest)
                if row is None:
                    break
                call.interest = None
                _compare(row.fingerprint, fingerprint)
            else:
                _compare(running.fingerprint, fingerprint)
                if self.mode == "observe":
                    return
                row = await self._results.wait(call, running)
                if row is None:
                    continue
            call.answer(_replay(call, row))
            return
        call.tap(self.result_mib * _MIB, self._room)
        outcome = yield
        self._results.finish(id, self._row(id, fingerprint, call, outcome))

    def _row(self, id: str, fingerprint: bytes, call: Call, outcome: Outcome) -> ResultRow | None:
        """What is kept of the outcome, if it is one to keep."""
        final = outcome.attempted and outcome.error is None and outcome.status in _FINAL
        if not (final or (outcome.complete and outcome.kind in ("served", "answered"))):
            return None
        if outcome.chunks is None and outcome.kind == "answered":
            return None  # nothing was executed
        answer = None if outcome.chunks is None else _encode(_answer(call, outcome))
        expires_wall_ns = self._wall_ns() + self.keep_s * 1_000_000_000
        return ResultRow(id, call.client.org, call.id, expires_wall_ns, fingerprint, outcome.status, answer)


def _id(call: Call, key: bytes) -> str:
    """The key's name among those of all orgs and clients."""
    if not 0 < len(key) <= _LONGEST_KEY or not key.isascii() or not key.decode().isprintable():
        raise BadRequest(
            f"An idempotency-key has 1 to {_LONGEST_KEY} printable ASCII characters, such as a UUID.",
            code="invalid_idempotency_key",
        )
    return id_of(call.client.org, call.client.id, key)


async def _fingerprint(call: Call) -> bytes:
    """What has to be the same for a call to be a repetition: path, query and body. Of a body that is passed on unread
    only the length and the beginning."""
    body = call.body
    if call.first_bytes is not None:
        body = call.headers.get(b"content-length", b"chunked") + b"\0" + await call.first_bytes()
    return hashlib.sha256(b"%b?%b\0%b" % (call.path, call.query, body or b"")).digest()


def _compare(first: bytes, mine: bytes) -> None:
    if first != mine:
        raise Conflict(
            "This idempotency-key was used before with another path or body. A key names one request; "
            "send a new request with a new key.",
            code="idempotency_key_reused",
        )


def _answer(call: Call, outcome: Outcome) -> tuple[list[Header], bool, tuple[bytes, ...]]:
    """Headers, whether it was a stream, and its body."""
    headers = [header for header in outcome.headers if header[0] not in _NOT_REPLAYED]
    if outcome.target is not None and outcome.target.model:
        headers.append((b"x-tidegate-model", outcome.target.model.encode("ascii", "replace")))
    headers += [header for header in call.reply_headers if header[0] == _DISCLOSED]
    is_stream = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
    chunks = outcome.chunks or ()
    return headers, is_stream, chunks if is_stream else (b"".join(chunks),)


def _replay(call: Call, row: ResultRow) -> Reply:
    if row.answer is None:
        raise Conflict(
            f"The first call with this idempotency-key (request id {row.call}) was executed, but its answer was too "
            "long to be kept. It is not executed again; a new request needs a new key.",
            code="idempotency_result_not_kept",
        )
    headers, is_stream, chunks = _decode(row.answer)
    call.notes["idempotent_replay_of"] = row.call
    headers += [
        (b"idempotent-replayed", b"true"),
        (b"x-tidegate-replay-of", row.call.encode()),
        (b"x-tidegate-cost", b"0"),
    ]
    return Reply(row.status, headers, tuple(chunks) if is_stream else b"".join(chunks))
