"""The intent journal: framed records in a preallocated, memory-mapped ring of segments. An append is one copy.

The event loop appends, the writer's thread reads behind it and releases segments whose records are in the database.
Neither needs a lock: each attribute has one writer, and an append is published by `last_seq`, its last assignment.
What is appended survives the end of the process at any instruction (the page cache keeps it), not a power cut.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from gateway.errors import Overloaded
from gateway.records.frames import (
    FRAME_HEAD,
    MAX_PAYLOAD,
    PAGE,
    SEGMENT_HEAD,
    Frame,
    Geometry,
    file_head,
    frame,
    frame_at,
    newest_ordinal,
    read_file_head,
    segment_head,
    walk,
)

_MEBIBYTE = 1024 * 1024
_MAX_FRAME = FRAME_HEAD + MAX_PAYLOAD


class LedgerFull(Overloaded):
    """No room to record another attempt: the writer is stuck (disk full, database locked). Fails closed, 503."""

    code = "ledger_full"


class Journal:
    """A ring of segments. `on_released` is called by the reader's thread when room came back."""

    def __init__(self, path: Path, geometry: Geometry, ordinal: int, seq: int) -> None:
        """Opens a file that `prepare` made, with `ordinal` as its next segment and `seq` as its next record."""
        self.geometry = geometry
        self.last_seq = seq - 1
        self.on_released: Callable[[], None] = _nothing
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._map = mmap.mmap(self._fd, geometry.file_bytes)
        # Each segment holds at least this much, wherever its last frame ends; so what is reserved always fits.
        self._usable = geometry.segment_bytes - SEGMENT_HEAD - _MAX_FRAME
        self._late: deque[tuple[int, bytes]] = deque()
        self.reserved = 0  # bytes promised to settlements of open intents
        self._shut = False  # it refused, and stays so until there is room for many: not one more for each that ends
        self._reopen = geometry.segments * self._usable // 16
        self._oldest = ordinal  # lowest ordinal that is not free; the reader's
        self._ordinal = ordinal  # the segment that is written, where its frames begin, the next one goes, and its end
        self._base = self._offset = self._end = 0
        self._enter(ordinal)
        self._read_ordinal = ordinal  # the reader's cursor
        self._read_offset = self._offset
        self._read_seq = seq

    # -- the event loop's side

    @property
    def room(self) -> int:
        """Bytes that can surely still be appended, reservations included."""
        used = self._ordinal * self._usable + min(self._offset - self._base, self._usable)
        return (self._oldest + self.geometry.segments) * self._usable - used

    def append(self, kind: int, payload: bytes, reserve: int = 0) -> None:
        """Adds a record and sets `reserve` bytes aside for a later one. Raises LedgerFull, then nothing is added, and
        nothing will be until a sixteenth of the journal is free."""
        # `room`, written out: this is on every call's way.
        written = self._offset - self._base
        used = self._ordinal * self._usable + (written if written < self._usable else self._usable)
        room = (self._oldest + self.geometry.segments) * self._usable - used
        room -= self.reserved
        if room < len(payload) + FRAME_HEAD + reserve or (self._shut and room < self._reopen):
            self._shut = True
            raise LedgerFull("The ledger can't record another call now; nothing was sent.", retry_after_s=1.0)
        self._shut = False
        self.reserved += reserve
        self._put(kind, payload)

    @property
    def shut(self) -> bool:
        """Whether the next record would be refused because others were."""
        return self._shut and self.room - self.reserved < self._reopen

    def append_reserved(self, kind: int, payload: bytes, reserve: int) -> None:
        """Adds a record into room set aside earlier, `reserve` bytes; never refuses."""
        self.reserved -= reserve
        self._put(kind, payload)

    def offer(self, kind: int, payload: bytes) -> None:
        """Adds a record that nobody waits for. In a full journal it stays in memory until there is room."""
        if self._late or self.room - self.reserved < len(payload) + FRAME_HEAD:
            self._late.append((kind, payload))
        else:
            self._put(kind, payload)

    def fits(self, payload: bytes, reserve: int) -> bool:
        """Whether a settlement may be this long without touching what other intents have reserved."""
        size = len(payload) + FRAME_HEAD
        return size <= reserve or (size <= _MAX_FRAME and self.room - self.reserved >= size - reserve)

    def catch_up(self) -> None:
        """Adds what `offer` kept back, as far as there is room."""
        while self._late and self.room - self.reserved >= len(self._late[0][1]) + FRAME_HEAD:
            self._put(*self._late.popleft())

    @property
    def late(self) -> int:
        """How many records wait in memory for room."""
        return len(self._late)

    def drop_late(self) -> None:
        """Forgets the oldest record that waits for room."""
        self._late.popleft()

    def _put(self, kind: int, payload: bytes) -> None:
        length = len(payload)
        if length > MAX_PAYLOAD:
            raise ValueError(f"a record of {length} bytes; the journal's room is promised in {MAX_PAYLOAD} at most")
        seq = self.last_seq + 1
        offset = self._offset
        end = offset + FRAME_HEAD + length
        if end > self._end:
            self._enter(self._ordinal + 1)
            offset = self._offset
            end = offset + FRAME_HEAD + length
        self._map[offset:end] = frame(seq, kind, payload)
        self._offset = end
        self.last_seq = seq

    def _enter(self, ordinal: int) -> None:
        start = self.geometry.start(ordinal)
        head = segment_head(ordinal, self.last_seq + 1)
        self._map[start : start + len(head)] = head
        self._ordinal = ordinal
        self._base = start + SEGMENT_HEAD
        self._offset = self._base
        self._end = start + self.geometry.segment_bytes

    # -- the writer thread's side

    def read(self, limit: int) -> list[Frame]:
        """The next records, at most `limit`; empty when all are read."""
        frames: list[Frame] = []
        last_seq = self.last_seq
        while self._read_seq <= last_seq and len(frames) < limit:
            end = self.geometry.start(self._read_ordinal) + self.geometry.segment_bytes
            found = frame_at(self._map, self._read_offset, end, self._read_seq)
            if found is None:
                self._read_ordinal += 1  # published beyond this segment's end
                self._read_offset = self.geometry.start(self._read_ordinal) + SEGMENT_HEAD
                continue
            frames.append(Frame(self._read_seq, *found, self._read_ordinal))
            self._read_offset += FRAME_HEAD + len(found[1])
            self._read_seq += 1
        return frames

    @property
    def unread(self) -> bool:
        """Whether there is something to read."""
        return self._read_seq <= self.last_seq

    @property
    def reading(self) -> int:
        """The ordinal of the segment where reading goes on."""
        return self._read_ordinal

    def release(self, ordinal: int) -> None:
        """Frees all segments before this one: whatever they held is in the database."""
        if ordinal == self._oldest:
            return
        for released in range(self._oldest, ordinal):  # the file keeps them, this process's memory need not
            self._map.madvise(mmap.MADV_DONTNEED, self.geometry.start(released), self.geometry.segment_bytes)
        self._oldest = ordinal
        self.on_released()

    def sync(self) -> int:
        """Waits until the disk has all that is appended now; the last sequence number that this covers. A system call
        of milliseconds, for a thread: writes through a shared map are as dirty to fdatasync as any."""
        covered = self.last_seq
        os.fdatasync(self._fd)
        return covered

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)


def _nothing() -> None:
    return


def recover(path: Path) -> tuple[list[Frame], int, Geometry | None]:
    """What a journal file holds: its whole records oldest first, its newest ordinal, its geometry (None: no file, or
    nothing of ours in it)."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], -1, None
    geometry = read_file_head(content)
    if geometry is None:
        return [], -1, None
    return list(walk(content, geometry)), newest_ordinal(content, geometry), geometry


def prepare(path: Path, geometry: Geometry) -> None:
    """Makes the file with every block allocated and written, so that a store into its map can never fail: SIGBUS is
    what a full disk gives to who writes into a hole. Raises OSError (ENOSPC)."""
    least = SEGMENT_HEAD + 2 * _MAX_FRAME
    if geometry.segment_bytes < least or geometry.segments < 2 or geometry.segment_bytes % PAGE:
        raise ValueError(f"a journal needs at least two segments of {least} bytes, in whole pages of {PAGE}")
    fresh = path.with_suffix(".new")
    fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, geometry.file_bytes)
        zeros = bytes(_MEBIBYTE)
        for offset in range(0, geometry.file_bytes, _MEBIBYTE):
            os.pwrite(fd, zeros[: geometry.file_bytes - offset], offset)
        os.pwrite(fd, file_head(geometry), 0)
        os.fsync(fd)
    except OSError:
        fresh.unlink()
        raise
    finally:
        os.close(fd)
    fresh.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
