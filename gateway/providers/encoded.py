"""Replies that came encoded although plain bytes were asked for."""

from __future__ import annotations

import zlib

from gateway.providers.base import Meter, Verdict
from gateway.usage import Usage

#: A chunk may become so long, and no longer: what a few bytes can blow up to is not our business to hold.
MOST_BYTES = 4_194_304

#: Window sizes by encoding: gzip with its header, zlib with its own.
_WINDOWS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


def plain(meter: Meter, encoding: bytes) -> Meter:
    """The meter itself, or one around it where the reply has an encoding."""
    return meter if not encoding or encoding == b"identity" else EncodedMeter(meter, encoding)


class EncodedMeter(Meter):
    """Passes the bytes on as they are, and lets another meter read a decoded copy. Nothing can be hidden from such a
    reply; one whose encoding is not known, or that is broken, is estimated from its request."""

    def __init__(self, inner: Meter, encoding: bytes) -> None:
        self._inner = inner
        window = _WINDOWS.get(encoding)
        self._decoder = None if window is None else zlib.decompressobj(window)
        self._is_readable = window is not None

    def feed(self, chunk: bytes) -> bytes:
        if self._decoder is not None:
            try:
                self._inner.feed(self._decoder.decompress(chunk, MOST_BYTES))
                self._is_readable = not self._decoder.unconsumed_tail
            except zlib.error:
                self._is_readable = False
            if not self._is_readable:
                self._decoder = None
        return chunk

    def finish(self, complete: bool) -> tuple[bytes, Usage, Verdict]:
        _, usage, verdict = self._inner.finish(complete and self._is_readable)
        self.model, self.object_ids = self._inner.model, self._inner.object_ids
        if not self._is_readable:
            verdict = "ok" if complete else "cut"
        return b"", usage, verdict
