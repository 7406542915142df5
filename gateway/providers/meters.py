"""Meters of any dialect: of a reply passed by, of one read at its end, of one followed event by event."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

from gateway.providers import texts
from gateway.providers.base import Meter, Verdict
from gateway.providers.vocabulary import Vocabulary
from gateway.sse import Splitter, bounds_of, events_of, last_events
from gateway.usage import Usage

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.providers.reported import Said

#: A whole reply is read at its end up to this size; of a longer one only its beginning and its end are.
READ_BYTES = 8_388_608
HEAD_BYTES = 4_096
TAIL_BYTES = 65_536

#: So much of a stream is kept to estimate from, should it not say what it consumed; the rest is taken to be like it.
KEPT_BYTES = 65_536

#: In how many of a stream's last events an end mark or an error is looked for.
LAST_EVENTS = 3

_USAGE = b'"usage"'

#: A member called usage, unless its value is null. (A string that ends on `\\"usage"` is followed by no colon.)
STATED = re.compile(rb'"usage"\s*+:\s*+(?!null)')


class PassingMeter(Meter):
    """A reply whose bytes say nothing about its cost; what it consumed was known before."""

    def __init__(self, units: dict[str, int], verdict: Verdict = "ok", *, is_estimate: bool = False) -> None:
        self._units = units
        self._is_estimate = is_estimate
        self._verdict = verdict

    def feed(self, chunk: bytes) -> bytes:
        return chunk

    def finish(self, complete: bool) -> tuple[bytes, Usage, Verdict]:
        return b"", Usage(units=dict(self._units), estimated=self._is_estimate), self._verdict if complete else "cut"


class WholeMeter(Meter):
    """A reply that is one JSON text, read when it is there. Keeps references to its chunks, not copies."""

    def __init__(self, call: Call, vocabulary: Vocabulary) -> None:
        self._call = call
        self._vocabulary = vocabulary
        self._chunks: list[bytes] = []
        self._size = 0
        self._head = b""  # only of a reply over READ_BYTES

    def feed(self, chunk: bytes) -> bytes:
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > READ_BYTES:
            self._shorten()
        return chunk

    def finish(self, complete: bool) -> tuple[bytes, Usage, Verdict]:
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self._head:
            return b"", self._of_ends(self._head, body), "ok" if complete else "cut"
        usage, verdict = self._of_body(body)
        if complete:
            return b"", usage, verdict
        return b"", self._of_part(body) if verdict == "error" else usage, "cut"  # it may have been whole all the same

    def _shorten(self) -> None:
        """Lets go of the middle, now and whenever the end has grown by another 8 MiB."""
        if not self._head:
            self._head = b"".join(self._chunks)[:HEAD_BYTES]
        self._chunks = [b"".join(self._chunks)[-TAIL_BYTES:]]
        self._size = 0

    @abstractmethod
    def _of_body(self, body: bytes) -> tuple[Usage, Verdict]:
        """Of the whole reply."""

    @abstractmethod
    def _of_part(self, body: bytes) -> Usage:
        """Of what came before the reply was cut."""

    @abstractmethod
    def _of_ends(self, head: bytes, tail: bytes) -> Usage:
        """Of the two ends of a very long reply."""


class StreamMeter(Meter):
    """A reply of server-sent events. Only whole events go on, so that whatever ends the stream early, an error can
    follow as an event of its own."""

    def __init__(self, call: Call, vocabulary: Vocabulary) -> None:
        self._call = call
        self._vocabulary = vocabulary
        self._splitter = Splitter()
        self._kept: list[bytes] = []
        self._room = KEPT_BYTES
        self._bytes = 0
        self._last: deque[bytes] = deque(maxlen=2)
        self._long_head = b""  # how an event over the splitter's limit began
        self._long_tail = b""

    def feed(self, chunk: bytes) -> bytes:
        if self._splitter.edge or chunk[-2:] != b"\n\n":
            out = self._splitter.feed(chunk)
            if not out:
                return out
            if self._splitter.is_inside or self._long_head:
                return self._follow_long(out)
            return self._note(out)
        return self._note(chunk)

    def _note(self, out: bytes) -> bytes:
        """Looks at whole events, and gives back those that go on."""
        if out.rfind(_USAGE) >= 0:  # `rfind` takes half the time of `in`
            out = self._look(out)
        if out:
            self._bytes += len(out)
            self._last.append(out)
            if self._room > 0:
                self._kept.append(out)
                self._room -= len(out)
        return out

    def finish(self, complete: bool) -> tuple[bytes, Usage, Verdict]:
        rest = self._splitter.rest()
        if rest:
            rest = self._note(rest)
        verdict = self._verdict(complete)
        usage, said = self._usage()
        if said != (True, True) and (verdict not in ("error", "overloaded") or self._has_content):
            self._estimate(usage, said)
        if verdict == "cut" or (verdict != "ok" and not complete):  # half an event helps nobody: what is out is ended
            rest = b"\n\n" if self._splitter.is_inside else b""
        return rest, usage, verdict

    @property
    def _first(self) -> bytes:
        """The first event that came."""
        return next(events_of(self._kept[0]), b"") if self._kept else b""

    @property
    def _latest(self) -> list[bytes]:
        """The last few events that came, in order."""
        return last_events(b"".join(self._last), LAST_EVENTS)

    @property
    def _has_content(self) -> bool:
        """Whether anything that was generated came."""
        return any(texts.of_stream(self._kept))

    def _look(self, out: bytes) -> bytes:
        """Reads the events that state a usage, and gives back what goes on: all of it."""
        at = out.rfind(_USAGE)
        if out[at + 7 : at + 12] == b":null" and out.rfind(_USAGE, 0, at) < 0:
            return out
        for start, end in sorted({bounds_of(out, found.start()) for found in STATED.finditer(out)}):
            self._read(out[start:end])
        return out

    def _follow_long(self, out: bytes) -> bytes:
        """An event over the limit goes by in pieces; its usage, near its end, is found when the end has come."""
        if not self._long_head:
            self._long_head = out[:HEAD_BYTES]
        if self._splitter.is_inside:
            self._bytes += len(out)
            self._long_tail = (self._long_tail + out)[-TAIL_BYTES:]
            return out
        edge = self._long_tail[-3:]  # its end may have begun there
        end = len(next(events_of(edge + out))) - len(edge)
        self._bytes += end
        self._read_long(self._long_head, self._long_tail + out[:end])
        self._long_head = self._long_tail = b""
        self._last.clear()
        return out[:end] + self._note(out[end:])

    def _estimate(self, usage: Usage, said: Said) -> None:
        kept = sum(map(len, self._kept))
        output = texts.Texts(texts.of_stream(self._kept))
        estimate(usage, said, self._call, self._vocabulary, output, self._bytes / kept if kept else 1.0)

    @abstractmethod
    def _read(self, event: bytes) -> None:
        """Reads one event that states a usage, perhaps null."""

    @abstractmethod
    def _read_long(self, head: bytes, tail: bytes) -> None:
        """Reads an event of which only both ends are known."""

    @abstractmethod
    def _usage(self) -> tuple[Usage, Said]:
        """What was said, and which of input and output it covers."""

    @abstractmethod
    def _verdict(self, complete: bool) -> Verdict:
        """How the stream ended."""


def is_lines(content_type: bytes) -> bool:
    """JSON texts line by line (results of batches): not one JSON text."""
    return any(word in content_type for word in (b"jsonl", b"ndjson", b"json-lines", b"json-seq"))


def usage_near_end(tail: bytes) -> dict[str, Any] | None:
    """The last object called usage in the end of a JSON text whose beginning is not known."""
    at = len(tail)
    for _ in range(8):  # other members may have that name
        at = tail.rfind(b'"usage"', 0, at)
        if at < 0:
            return None
        after = tail[at + 7 :].decode("utf-8", "replace").lstrip().removeprefix(":").lstrip()
        try:
            value, _ = json.JSONDecoder().raw_decode(after)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None


def estimate(
    usage: Usage, said: Said, call: Call, vocabulary: Vocabulary, output: texts.Texts, stretch: float = 1.0
) -> None:
    """Fills in what was not said, from the request's texts and the output that came; `stretch` is how much more
    output there was than was kept."""
    usage.estimated = True
    if not said[0]:
        usage.input_tokens = count_input(call, vocabulary)
    if not said[1]:
        made = output.fixed + vocabulary.measure(output.found) * stretch
        usage.output_tokens = max(usage.output_tokens, round(made))


def count_input(call: Call, vocabulary: Vocabulary) -> int:
    """Tokens of a call's own texts, with what its messages are framed with; never more than one a byte."""
    if call.facts.input_tokens is not None:
        return call.facts.input_tokens
    asked = texts.of_request(call.route.name, call.json)
    return asked.fixed + vocabulary.measure(asked.found)
