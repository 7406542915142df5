"""Server-sent events as bytes: where one ends, and what it carries.

Lines end on CR, LF or CRLF and on nothing else (https://html.spec.whatwg.org/multipage/server-sent-events.html): the
U+2028 that Python's own `splitlines` honours is an ordinary character inside a JSON text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

#: An event longer than this is passed on in pieces as it comes.
MAX_EVENT_BYTES = 262_144

#: An event's end, CRLF CRLF, may begin so many bytes before the chunk that completes it.
_EDGE = 3

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)++")


class Splitter:
    """Gives whole events only, as long as they are of reasonable size; keeps the beginning of the next one.

    `edge` is empty between events. `is_inside` says that what came out last ends in the middle of an event (one over
    the limit).
    """

    __slots__ = ("_limit", "_parts", "_size", "edge", "is_inside")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self.edge = b""  # the last bytes before the next chunk that belong to the same event
        self.is_inside = False

    def feed(self, chunk: bytes) -> bytes:
        """The events that are complete now: the very chunk, where it ends with an event and nothing was kept."""
        if not self.edge and chunk[-2:] == b"\n\n":
            return chunk
        end = end_of_events(self.edge + chunk) - len(self.edge)
        if end > 0:
            out = b"".join((*self._parts, chunk[:end]))
            rest = chunk[end:]
            self._parts = [rest] if rest else []
            self._size = len(rest)
            self.edge = rest[-_EDGE:]
            self.is_inside = False
            return out
        self._parts.append(chunk)
        self._size += len(chunk)
        self.edge = (self.edge + chunk)[-_EDGE:]
        if self._size <= self._limit and not self.is_inside:
            return b""
        self.is_inside = True
        return self.rest()

    def rest(self) -> bytes:
        """What was kept, and keeps it no longer."""
        out = b"".join(self._parts)
        self._parts, self._size = [], 0
        return out


def end_of_events(data: bytes) -> int:
    """The index behind the last complete event in `data`, 0 where none is."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    if data.endswith(b"\r\n\r"):
        data = data[:-1]  # the blank line's own LF is still on its way
    end = 0
    for found in _BLANK_LINE.finditer(data):
        end = found.end()
    return end


def events_of(data: bytes) -> Iterator[bytes]:
    """The events of `data`, each with its own end; what follows the last end comes as the last item."""
    start = 0
    if b"\r" in data:
        for found in _BLANK_LINE.finditer(data):
            yield data[start : found.end()]
            start = found.end()
    else:
        while (end := data.find(b"\n\n", start)) >= 0:
            yield data[start : end + 2]
            start = end + 2
    if start < len(data):
        yield data[start:]


def bounds_of(data: bytes, position: int) -> tuple[int, int]:
    """Where the event around `position`, which is no line end, begins and ends."""
    start = 0
    if b"\r" in data:
        for event in events_of(data):
            if start + len(event) > position:
                return start, start + len(event)
            start += len(event)
    before, after = data.rfind(b"\n\n", 0, position), data.find(b"\n\n", position)
    start = before + 2 if before >= 0 else 0
    while data[start : start + 1] == b"\n":
        start += 1
    return start, after + 2 if after >= 0 else len(data)


def data_of(event: bytes) -> bytes:
    """The payload of one event: its data lines, joined by LF."""
    found = []
    for line in _LINE_END.split(event):
        if line.startswith(b"data:"):
            found.append(line[6:] if line[5:6] == b" " else line[5:])
    return b"\n".join(found)


def last_events(data: bytes, count: int) -> list[bytes]:
    """Up to `count` events at the end of `data`, in order, without looking at those before."""
    if b"\r" in data:
        return [event for event in events_of(data) if event.strip()][-count:]
    found = data.strip(b"\n").rsplit(b"\n\n", count)
    if not all(event.strip(b"\n") for event in found):  # empty lines between events, which nobody sends
        found = data.split(b"\n\n")
    return [event for event in found if event.strip()][-count:]
