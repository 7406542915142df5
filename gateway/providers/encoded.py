"""Replies that came encoded although plain bytes were asked for."""

from __future__ import annotations

from gateway.providers.base import Meter, Verdict
from gateway.server.bodies import decoder
from gateway.server.refusal import Refusal
from gateway.usage import Usage

#: What a reply may become decoded, and no more: what a few bytes can blow up to is not our business to read.
MOST_BYTES = 8_388_608


def plain(meter: Meter, encoding: bytes) -> Meter:
    """The meter itself, or one around it where the reply has an encoding."""
    return meter if not encoding or encoding == b"identity" else EncodedMeter(meter, encoding)


class EncodedMeter(Meter):
    """Passes the bytes on as they are, and lets another meter read a decoded copy. Nothing can be hidden from such a
    reply; one whose encoding is not known, that is broken, or that becomes too long, is estimated from its request."""

    def __init__(self, inner: Meter, encoding: bytes) -> None:
        self._inner = inner
        self._is_readable = True
        try:
            self._decoder = decoder(encoding, MOST_BYTES)
        except Refusal:
            self._is_readable = False

    def feed(self, chunk: bytes) -> bytes:
        if self._is_readable:
            try:
                self._inner.feed(self._decoder.feed(chunk))
            except Refusal:
                self._is_readable = False
        return chunk

    def finish(self, complete: bool) -> tuple[bytes, Usage, Verdict]:
        _, usage, verdict = self._inner.finish(complete and self._is_readable)
        self.model, self.object_ids = self._inner.model, self._inner.object_ids
        if not self._is_readable:
            verdict = "ok" if complete else "cut"
        return b"", usage, verdict
