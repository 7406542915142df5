"""Incoming bodies: where the body of a request ends, by its length or by the chunked coding, and how slow it may be.

Of the chunked coding (RFC 9112 section 7.1) exactly one form of each delimiter is accepted: sizes are plain hexadecimal
digits, line ends are CR LF, the data of a chunk is followed by CR LF at once. Chunk extensions and trailers are
checked, bounded, and thrown away.
"""

from gateway.server.head import CONTROLS, TOKEN, body_too_large
from gateway.server.limits import WireLimits
from gateway.server.paths import HEX
from gateway.server.refusal import BadFraming, Refusal

LONGEST_LINE = 1_024
LONGEST_SIZE = 12  # hexadecimal digits
MOST_EXTRA = 16_384  # bytes of extensions and trailers in one body
# Reading a chunk costs the same whatever its size: many tiny ones would be a cheap way to keep a core busy.
SMALL = 8  # bytes
MOST_SMALL = 4_096  # chunks before their average size matters

SIZE, DATA, DATA_END, TRAILERS, DONE = range(5)


class LengthBody:
    """A body with a content-length of `left` bytes; `rest` is what follows it once `done`."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.rest = b""

    @property
    def done(self) -> bool:
        """Whether the body has ended; nothing may be fed after that."""
        return self.left == 0

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`."""
        if len(data) <= self.left:
            self.left -= len(data)
            return data
        body, self.rest = data[: self.left], data[self.left :]
        self.left = 0
        return body


class ChunkedBody:
    """A body in chunks, decoded incrementally; `rest` is what follows it once `done`.

    `max_body_bytes`: the largest sum of all chunks, 0 for no bound.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self.rest = b""
        self._phase = SIZE
        self._left = 0
        self._total = 0
        self._chunks = 0
        self._extra = 0
        self._pending = b""

    @property
    def done(self) -> bool:
        """Whether the body has ended; nothing may be fed after that."""
        return self._phase == DONE

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`, which continues what was fed before.

        Raises:
            BadFraming: a delimiter is not what it has to be.
            Refusal: 413 for too large a body, 431 for too large trailers or extensions.
        """
        if self._pending:
            data = self._pending + data
            self._pending = b""
        body: list[bytes] = []
        at = 0
        while at < len(data) and self._phase != DONE:
            if self._phase == DATA:
                piece = data[at : at + self._left]
                body.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._phase = DATA_END
                    if data[at : at + 2] == b"\r\n":  # the usual case, without the detour over lines
                        self._phase = SIZE
                        at += 2
                continue
            line = self._take_line(data, at)
            if line is None:
                break
            at += len(line) + 2
            self._read(line)
        if self._phase == DONE:
            self.rest = data[at:]
        return body[0] if len(body) == 1 else b"".join(body)

    def _take_line(self, data: bytes, at: int) -> bytes | None:
        """The line at `at` without its end; None, with the bytes kept, if it has not ended yet."""
        end = data.find(b"\r\n", at, at + LONGEST_LINE + 2)
        if end >= 0:
            return data[at:end]
        kept = data[at:]
        if len(kept) > LONGEST_LINE:
            raise _too_much()
        if b"\n" in kept or (self._phase == DATA_END and kept != b"\r"):
            raise BadFraming("a chunk is not delimited by CR LF", "bad_chunk")
        self._pending = kept
        return None

    def _read(self, line: bytes) -> None:
        if self._phase == SIZE:
            self._read_size(line)
        elif self._phase == DATA_END:
            if line:
                raise BadFraming("the data of a chunk is longer than its size says", "bad_chunk")
            self._phase = SIZE
        elif not line:
            self._phase = DONE
        else:
            name, colon, _ = line.partition(b":")
            if not name or not colon or name.translate(None, TOKEN):
                raise BadFraming("a trailer has no name, no colon, or a character that no name has", "bad_chunk")
            self._count_extra(line)

    def _read_size(self, line: bytes) -> None:
        digits, semicolon, extension = line.partition(b";")
        if not digits or len(digits) > LONGEST_SIZE or digits.translate(None, HEX):
            raise BadFraming("the size of a chunk is not a plain hexadecimal number", "bad_chunk")
        if semicolon:
            self._count_extra(extension)
        self._left = int(digits, 16)
        self._total += self._left
        self._chunks += 1
        if self._chunks > MOST_SMALL and self._total < self._chunks * SMALL:
            raise BadFraming(f"its chunks have less than {SMALL} bytes on average", "chunks_too_small")
        if self.max_body_bytes and self._total > self.max_body_bytes:
            raise body_too_large(self.max_body_bytes)
        self._phase = DATA if self._left else TRAILERS

    def _count_extra(self, extra: bytes) -> None:
        if extra.translate(None, CONTROLS) != extra:
            raise BadFraming("a chunk extension or trailer has a control character", "bad_chunk")
        self._extra += len(extra) + 2
        if self._extra > MOST_EXTRA:
            raise _too_much()


class BodyClock:
    """When a body is too slow: no byte for `body_timeout_s`, or below `min_body_rate` on average after that."""

    def __init__(self, limits: WireLimits, now: float) -> None:
        self._timeout_s = limits.body_timeout_s
        self._rate = limits.min_body_rate
        self._since = now
        self._bytes = 0

    def deadline(self, now: float, count: int = 0) -> float:
        """The time by which more has to come, now that `count` bytes have come."""
        self._bytes += count
        if not self._rate:
            return now + self._timeout_s
        return min(now, self._since + self._bytes / self._rate) + self._timeout_s


def _too_much() -> Refusal:
    return Refusal(431, "chunk_lines_too_large", "The chunk extensions or trailers are too large. Leave them out.")
