"""Vectors of questions that have an answer, by what else has to be the same: which one is nearest. Needs numpy.

Exact search over the rows of one partition, which is small: all that may differ within it is the last message.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway.likeness import Marks, may_be_alike

Vector = NDArray[np.float32]


def unit(values: object) -> Vector:
    """A vector of length 1, so that the product of two is the cosine between them. Raises ValueError for what is none:
    nested, not finite, or all zeros."""
    vector = np.asarray(values, dtype=np.float32)
    length = float(np.linalg.norm(vector)) if vector.ndim == 1 and vector.size else 0.0
    if not 0 < length < float("inf"):
        raise ValueError("an embedding is one row of numbers that are not all zero")
    return vector / np.float32(length)


class _Partition:
    """Rows that differ in their last message alone."""

    __slots__ = ("keys", "marks", "rows")

    def __init__(self, width: int) -> None:
        self.rows: Vector = np.empty((1, width), np.float32)
        self.keys: list[bytes] = []
        self.marks: list[Marks] = []

    def add(self, key: bytes, vector: Vector, marks: Marks) -> None:
        count = len(self.keys)
        if count == len(self.rows):
            self.rows = np.concatenate((self.rows, np.empty_like(self.rows)))
        self.rows[count] = vector
        self.keys.append(key)
        self.marks.append(marks)

    def remove(self, at: int) -> None:
        last = len(self.keys) - 1
        self.rows[at], self.keys[at], self.marks[at] = self.rows[last], self.keys[last], self.marks[last]
        self.keys.pop()
        self.marks.pop()


class Alike:
    """At most `max_rows` in all: the partition used longest ago goes first; at most `max_partition_rows` in one, where
    a random one makes room. A row of 256 numbers takes 1 KB."""

    def __init__(self, max_rows: int, max_partition_rows: int = 2_000) -> None:
        self.max_rows = max_rows
        self._most = max_partition_rows
        self._partitions: OrderedDict[bytes, _Partition] = OrderedDict()
        self.count = 0

    def nearest(
        self, part: bytes, vector: Vector, marks: Marks, least: float, *, same_words: bool
    ) -> list[tuple[float, bytes]]:
        """Similarity and key of the rows at least that similar that may be the same question, the nearest first."""
        found = self._partitions.get(part)
        if found is None or not found.keys or found.rows.shape[1] != vector.size:
            return []
        self._partitions.move_to_end(part)
        similar = found.rows[: len(found.keys)] @ vector
        near = np.flatnonzero(similar >= least)
        return [
            (min(1.0, float(similar[at])), found.keys[at])
            for at in near[np.argsort(-similar[near])]
            if may_be_alike(marks, found.marks[at], same_words=same_words)
        ]

    def add(self, part: bytes, key: bytes, vector: Vector, marks: Marks, lives: Callable[[bytes], bool]) -> None:
        """One more question; `lives` tells whether the answer of a key is still kept: rows without one make room."""
        self.forget(part, key)
        found = self._partitions.get(part)
        if found is not None and found.rows.shape[1] != vector.size:
            self._drop(part)  # another model than before
            found = None
        if found is None:
            found = self._partitions[part] = _Partition(vector.size)
        if len(found.keys) >= self._most:
            self._make_room(found, lives)
        found.add(key, vector, marks)
        self.count += 1
        self._partitions.move_to_end(part)
        while self.count > self.max_rows:
            self._drop(next(iter(self._partitions)))

    def forget(self, part: bytes, key: bytes) -> None:
        """The question of that key, if it is there."""
        found = self._partitions.get(part)
        if found is not None and key in found.keys:
            found.remove(found.keys.index(key))
            self.count -= 1
            if not found.keys:
                del self._partitions[part]

    def _make_room(self, found: _Partition, lives: Callable[[bytes], bool]) -> None:
        """All rows without an answer go; if there is none, the first one does."""
        before = len(found.keys)
        for at in reversed(range(before)):
            if not lives(found.keys[at]):
                found.remove(at)
        if len(found.keys) == before:
            found.remove(0)
        self.count -= before - len(found.keys)

    def _drop(self, part: bytes) -> None:
        self.count -= len(self._partitions.pop(part).keys)
