"""Encoded request bodies: decoded within a bound, or refused."""

import zlib
from collections.abc import Iterable
from typing import Protocol

from gateway.server.head import body_too_large
from gateway.server.refusal import BodyRefused

IDENTITY = frozenset((b"", b"identity"))
ENCODINGS = "gzip, deflate, zstd"
# Each gzip member or zstd frame costs a decoder, whatever is in it: many empty ones would keep a core busy for hours.
SMALL = 512  # decoded bytes
MOST_SMALL = 1_024  # members or frames before their average size matters
LARGEST_WINDOW = 8 * 1024 * 1024  # memory that a zstd frame may ask for (RFC 9659 allows 8 MB for HTTP)


class Decoder(Protocol):
    """Decodes a body piece by piece."""

    def feed(self, chunk: bytes) -> bytes:
        """The decoded bytes that `chunk` adds."""

    def finish(self) -> None:
        """The body has ended; refuse it if it was not whole."""


def decoder(encoding: bytes, limit: int) -> Decoder:
    """A decoder for a Content-Encoding, giving at most `limit` bytes in all.

    Raises:
        BodyRefused: 415 for an unknown encoding or more than one. Its `feed` and `finish` raise 413 when the decoded
            body is over the limit, 400 when the encoded one is damaged or not whole.
    """
    name = encoding.strip().lower()
    if name in IDENTITY:
        return _Identity(limit)
    if name in (b"gzip", b"x-gzip"):
        return _Zlib(limit, 16 + zlib.MAX_WBITS)
    if name == b"deflate":
        return _Zlib(limit, zlib.MAX_WBITS)
    if name == b"zstd":
        return _Zstd(limit)
    what = "More than one Content-Encoding" if b"," in name else "This Content-Encoding"
    raise BodyRefused(
        415,
        "unsupported_content_encoding",
        f"{what} is not accepted. Send the body as it is, or as one of {ENCODINGS}.",
        ((b"accept-encoding", ENCODINGS.encode()),),
    )


def decode(encoding: bytes, chunks: Iterable[bytes], limit: int) -> bytes:
    """The whole decoded body; see `decoder` for what is refused."""
    reader = decoder(encoding, limit)
    body = b"".join([reader.feed(chunk) for chunk in chunks])
    reader.finish()
    return body


def _damaged(what: str) -> BodyRefused:
    return BodyRefused(400, "bad_content_encoding", f"The request body is not valid {what}. Send it again.")


class _Members:
    """How many members or frames a body has, and whether they are worth it."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, given: int) -> None:
        """One more begins, `given` decoded bytes into the body."""
        self._count += 1
        if self._count > MOST_SMALL and given < self._count * SMALL:
            what = f"of {self._count} members or frames with less than {SMALL} bytes on average"
            raise BodyRefused(400, "bad_content_encoding", f"The request body is made {what}. Send it as one.")


class _Identity:
    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def feed(self, chunk: bytes) -> bytes:
        self._left -= len(chunk)
        if self._left < 0:
            raise body_too_large(self._limit)
        return chunk

    def finish(self) -> None:
        """Any body is whole."""


class _Zlib:
    """gzip (also of several members) and deflate (zlib's format; the raw one, which some clients send, too).

    It is fed in slices, since zlib copies what is behind a member's end.
    """

    slice_bytes = 16_384

    def __init__(self, limit: int, wbits: int) -> None:
        self._limit = self._left = limit
        self._wbits = wbits
        self._zlib = zlib.decompressobj(wbits)
        self._begun = False
        self._members = _Members()

    def feed(self, chunk: bytes) -> bytes:
        if not self._begun and chunk:
            self._begin(chunk)
        size = self.slice_bytes
        return b"".join([self._feed(chunk[start : start + size]) for start in range(0, len(chunk), size)])

    def _feed(self, rest: bytes) -> bytes:
        out = []
        while rest:
            if self._zlib.eof:
                if self._wbits < 16:
                    raise _damaged("deflate: there are bytes behind its end")
                self._members.add(self._limit - self._left)
                self._zlib = zlib.decompressobj(self._wbits)
            try:
                piece = self._zlib.decompress(rest, self._left + 1)
            except zlib.error:
                raise _damaged("gzip" if self._wbits > 16 else "deflate") from None
            self._left -= len(piece)
            if self._left < 0:
                raise body_too_large(self._limit)
            out.append(piece)
            rest = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
        return b"".join(out)

    def _begin(self, chunk: bytes) -> None:
        """Tell raw deflate by its first byte: zlib's says method 8 with a window of at most 32 KiB."""
        self._begun = True
        if self._wbits == zlib.MAX_WBITS and (chunk[0] & 0x0F != 8 or chunk[0] >> 4 > 7):
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)

    def finish(self) -> None:
        if not self._zlib.eof:
            raise _damaged("gzip" if self._wbits > 16 else "deflate")


class _Zstd:
    """zstd, also of several frames. Its decoder has no bound of its own, so it is fed in small slices: a block of 4
    bytes can become 128 KiB (RFC 8878 section 3.1.1.2), hence a slice 8 MiB at most before the limit is looked at.
    """

    slice_bytes = 256

    def __init__(self, limit: int) -> None:
        import zstandard  # loaded only where a client sends it

        self._limit = self._left = limit
        self._error = zstandard.ZstdError
        self._new = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj
        self._zstd = self._new()
        self._members = _Members()

    def feed(self, chunk: bytes) -> bytes:
        out = []
        for start in range(0, len(chunk), self.slice_bytes):
            rest = chunk[start : start + self.slice_bytes]
            while rest:
                if self._zstd.eof:
                    self._members.add(self._limit - self._left)
                    self._zstd = self._new()
                try:
                    piece = self._zstd.decompress(rest)
                except self._error:
                    raise _damaged("zstd (with a window of at most 8 MiB)") from None
                self._left -= len(piece)
                if self._left < 0:
                    raise body_too_large(self._limit)
                out.append(piece)
                rest = self._zstd.unused_data if self._zstd.eof else b""
        return b"".join(out)

    def finish(self) -> None:
        if not self._zstd.eof:
            raise _damaged("zstd")
