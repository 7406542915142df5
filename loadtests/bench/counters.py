"""Counters that a C program keeps in a file of 64-bit words: read as shared memory, at no cost to the program."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path


class Counters:
    """`count` words of `path`, which is made (all zero) before the program opens it."""

    def __init__(self, path: Path, count: int) -> None:
        path.write_bytes(bytes(8 * count))
        self._format = f"{count}Q"
        with path.open("rb") as file:
            self._memory = mmap.mmap(file.fileno(), 8 * count, access=mmap.ACCESS_READ)

    def read(self) -> tuple[int, ...]:
        return struct.unpack(self._format, self._memory[:])

    def close(self) -> None:
        self._memory.close()
