"""How the journal looks in bytes: a file header, segments with headers, frames with a checksum; and how it is read."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

#: Kinds of record. Numbers are on disk: never reuse one.
INTENT = 1  # AttemptRow, before it is sent
SETTLEMENT = 2  # (AttemptRow, CallRow | None)
CALL = 3  # CallRow of a call that ended without a further attempt
OBJECT = 4  # ObjectRow
OBJECT_GONE = 5  # id and org of an object deleted at its provider
RESULT = 6  # ResultRow

PAGE = 4096  # the file header's; segments follow
SEGMENT_HEAD = 64
MAX_PAYLOAD = 16 * 1024  # longer rows are shortened before they are journalled

Buffer = bytes | bytearray | memoryview | mmap.mmap

_FILE = struct.Struct("<8sIII")  # magic, segments, bytes a segment, crc32 of the three
_SEGMENT = struct.Struct("<4sQQI")  # magic, ordinal, first sequence, crc32 of the three
_FRAME = struct.Struct("<IIQB")  # payload length, crc32, sequence, kind
_FILE_MAGIC = b"TIDEJRN1"
_SEGMENT_MAGIC = b"TSEG"

FRAME_HEAD = _FRAME.size
_pack_frame = _FRAME.pack
_unpack_frame = _FRAME.unpack_from
_crc32 = zlib.crc32


class Geometry(NamedTuple):
    """How a journal file is divided."""

    segments: int
    segment_bytes: int

    @property
    def file_bytes(self) -> int:
        return PAGE + self.segments * self.segment_bytes

    def start(self, ordinal: int) -> int:
        """Where the segment with this ordinal begins; ordinals count for ever, places are reused."""
        return PAGE + ordinal % self.segments * self.segment_bytes


class Frame(NamedTuple):
    """One record: its sequence number, kind, payload (msgpack) and the ordinal of the segment it is in."""

    seq: int
    kind: int
    payload: bytes
    ordinal: int


def frame(seq: int, kind: int, payload: bytes) -> bytes:
    """The bytes of one record. The checksum starts from sequence and kind, so it covers them too."""
    return _pack_frame(len(payload), _crc32(payload, (seq << 8 | kind) & 0xFFFFFFFF), seq, kind) + payload


def frame_at(buffer: Buffer, offset: int, end: int, seq: int) -> tuple[int, bytes] | None:
    """Kind and payload of the record `seq`, if it stands whole at `offset` and within `end`; None otherwise: torn by a
    crash, left from an earlier lap of the ring, or the segment's end."""
    if offset + FRAME_HEAD > end:
        return None
    length, checksum, found, kind = _unpack_frame(buffer, offset)
    if found != seq or offset + FRAME_HEAD + length > end:
        return None
    payload = bytes(buffer[offset + FRAME_HEAD : offset + FRAME_HEAD + length])
    if _crc32(payload, (seq << 8 | kind) & 0xFFFFFFFF) != checksum:
        return None
    return kind, payload


def file_head(geometry: Geometry) -> bytes:
    body = _FILE_MAGIC + struct.pack("<II", *geometry)
    return body + struct.pack("<I", _crc32(body))


def read_file_head(buffer: Buffer) -> Geometry | None:
    """The geometry a file says it has; None if this is no journal of ours."""
    if len(buffer) < _FILE.size:
        return None
    magic, segments, segment_bytes, checksum = _FILE.unpack_from(buffer)
    if magic != _FILE_MAGIC or _crc32(bytes(buffer[:16])) != checksum:
        return None
    geometry = Geometry(segments, segment_bytes)
    return geometry if segments > 0 and geometry.file_bytes <= len(buffer) else None


def segment_head(ordinal: int, first_seq: int) -> bytes:
    body = _SEGMENT_MAGIC + struct.pack("<QQ", ordinal, first_seq)
    return body + struct.pack("<I", _crc32(body))


def read_segment_head(buffer: Buffer, offset: int) -> tuple[int, int] | None:
    """Ordinal and first sequence number of the segment at `offset`; None if it was never used."""
    magic, ordinal, first_seq, checksum = _SEGMENT.unpack_from(buffer, offset)
    body = bytes(buffer[offset : offset + _SEGMENT.size - 4])
    if magic != _SEGMENT_MAGIC or _crc32(body) != checksum:
        return None
    return ordinal, first_seq


def walk(buffer: Buffer, geometry: Geometry) -> Iterator[Frame]:
    """Every whole record of a journal, oldest first, whatever a crash left of it."""
    heads = []
    for place in range(geometry.segments):
        start = geometry.start(place)
        head = read_segment_head(buffer, start)
        if head is not None and geometry.start(head[0]) == start:
            heads.append(head)
    for ordinal, first_seq in sorted(heads):
        offset = geometry.start(ordinal)
        end = offset + geometry.segment_bytes
        offset += SEGMENT_HEAD
        seq = first_seq
        while (found := frame_at(buffer, offset, end, seq)) is not None:
            kind, payload = found
            yield Frame(seq, kind, payload, ordinal)
            offset += FRAME_HEAD + len(payload)
            seq += 1


def newest_ordinal(buffer: Buffer, geometry: Geometry) -> int:
    """The highest ordinal in use; -1 in a fresh journal."""
    heads = (read_segment_head(buffer, geometry.start(place)) for place in range(geometry.segments))
    return max((head[0] for head in heads if head is not None), default=-1)
