"""A reply as it went out, chunk by chunk and within bounds: what a policy may keep of it."""

from __future__ import annotations


class Room:
    """Bytes that many recordings share; what finds no room is not recorded."""

    __slots__ = ("max_bytes", "used_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0


class Recording:
    """The chunks of one reply, up to `max_bytes` of it and as long as each `Room` has some; else nothing at all."""

    __slots__ = ("_bytes", "_chunks", "_max_bytes", "_rooms")

    def __init__(self) -> None:
        self._chunks: list[bytes] | None = []
        self._bytes = 0
        self._max_bytes = 0
        self._rooms: list[Room] = []

    def widen(self, max_bytes: int, room: Room | None) -> None:
        """One more reader, who wants replies of up to `max_bytes`, counted in `room`."""
        self._max_bytes = max(self._max_bytes, max_bytes)
        if room is not None and room not in self._rooms:
            self._rooms.append(room)

    def keep(self, chunk: bytes) -> None:
        """The next chunk, as it goes out."""
        if self._chunks is None or not chunk:
            return
        size = len(chunk)
        self._bytes += size
        for room in self._rooms:
            room.used_bytes += size
        if self._bytes > self._max_bytes or any(room.used_bytes > room.max_bytes for room in self._rooms):
            self.drop()
        else:
            self._chunks.append(chunk)

    @property
    def chunks(self) -> tuple[bytes, ...] | None:
        """What went out; None if it was too much."""
        return None if self._chunks is None else tuple(self._chunks)

    def drop(self) -> None:
        """Forgets what it has, and takes no more."""
        self._chunks = None
        for room in self._rooms:
            room.used_bytes -= self._bytes
        self._bytes = 0
