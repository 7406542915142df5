"""Streams of OpenAI's API and of what imitates it: what states their usage, what is hidden, what ends them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.providers.base import Verdict
from gateway.providers.meters import STATED, StreamMeter, usage_near_end
from gateway.providers.openai_shapes import (
    ALL,
    DONE,
    ID,
    NOTHING,
    TYPE,
    event_of,
    is_empty,
    is_overload,
    text_of,
)
from gateway.providers.openai_whole import image_units, states_usage
from gateway.providers.reported import OpenAIUsage, Said, loosely
from gateway.providers.vocabulary import Vocabulary
from gateway.sse import bounds_of, data_of
from gateway.usage import Usage

if TYPE_CHECKING:
    from gateway.call import Call


_NO_CHOICES = b'"choices":[]'

#: A quote behind a comma opens a string, so this is a member called usage and never a part of a text.
_NULL_MEMBER = b',"usage":null'
_SPACED_NULL = re.compile(rb',\s*+"usage"\s*+:\s*+null')

#: A choice that says why it ended. (A string that ends on `\\"finish_reason"` is followed by no colon.)
_FINISHED = re.compile(rb'"finish_reason"\s*+:\s*+"')


def _without_null(events: bytes) -> bytes:
    """Without the usage of null that other events have when a usage was asked for."""
    shorter = events.replace(_NULL_MEMBER, b"")
    return _SPACED_NULL.sub(b"", shorter) if shorter.rfind(b'"usage"') >= 0 else shorter


class EventsMeter(StreamMeter):
    """A stream of typed events. `ends` are the types that end it, none where the connection's end does.
    `bills` False: what it states was billed before."""

    def __init__(
        self,
        call: Call,
        vocabulary: Vocabulary,
        ends: tuple[str, ...],
        *,
        bills: bool = True,
        units: dict[str, int] | None = None,
        pending_tokens: int = 0,
    ) -> None:
        super().__init__(call, vocabulary)
        self._units = units or {}
        self._ends = ends
        self._bills = bills
        self._pending_tokens = pending_tokens
        self._reported: OpenAIUsage | None = None
        self._end = ""  # the type of the last event that was read

    def _read(self, event: bytes) -> None:
        read = event_of(data_of(event))
        self._end = read.type or ""
        reported = read.usage if read.response is None else read.response.usage
        if reported is not None:
            self._reported = reported
        if read.response is not None and read.response.output:
            made = [item.container_id for item in read.response.output if item.container_id is not None]
            self.object_ids = tuple(dict.fromkeys((*self.object_ids, *made)))

    def _read_long(self, head: bytes, tail: bytes) -> None:
        self._end = text_of(TYPE, head)
        reported = loosely(usage_near_end(tail), OpenAIUsage)
        if reported is not None:
            self._reported = reported

    def _usage(self) -> tuple[Usage, Said]:
        self._name()
        usage = Usage(units=dict(self._units))
        if not self._bills:
            return usage, ALL
        return usage, NOTHING if self._reported is None else self._reported.into(usage)

    def _name(self) -> None:
        first = event_of(data_of(self._first))
        made = first.response
        self.model = (first.model if made is None else made.model) or ""
        asked = self._call.json
        stores = self._call.route.name == "responses" and isinstance(asked, dict) and asked.get("store") is not False
        if made is not None and made.id is not None and stores:
            self.object_ids = (made.id, *self.object_ids)

    def _estimate(self, usage: Usage, said: Said) -> None:
        super()._estimate(usage, said)
        if not said[1]:  # it goes on being made, though nobody listens
            usage.output_tokens = max(usage.output_tokens, self._pending_tokens)

    def _verdict(self, complete: bool) -> Verdict:
        ended = self._end in self._ends
        for event in reversed(self._latest):
            data = data_of(event)
            read = event_of(data)
            if read.error is not None or read.type == "error":
                return "error" if self._has_content or not is_overload(read.error) else "overloaded"
            if read.type == "response.failed":
                return "failed"
            ended = ended or data == DONE or read.type in self._ends
        if self._end == "response.failed":
            return "failed"
        return "ok" if ended or (complete and not self._ends) else "cut"


class PassedStream(EventsMeter):
    """A stream of a path that we know nothing about, or of something that was billed when it was made: a request, and
    what it states where a model was called."""

    def __init__(self, call: Call, vocabulary: Vocabulary) -> None:
        super().__init__(call, vocabulary, (), bills=states_usage(call), units={"requests": 1})

    def _usage(self) -> tuple[Usage, Said]:
        return super()._usage()[0], ALL


class ImageStream(EventsMeter):
    """Images as they become ready: each is stated, and billed, by an event of its own."""

    def __init__(self, call: Call, vocabulary: Vocabulary) -> None:
        super().__init__(call, vocabulary, ("image_generation.completed", "image_edit.completed"))
        self._count = 0
        self._size: str | None = None
        self._quality: str | None = None
        self._sum = Usage()
        self._tokens: dict[str, int] = {}  # of images, where a reply tells them apart
        self._is_stated = True

    def _read(self, event: bytes) -> None:
        read = event_of(data_of(event))
        self._size, self._quality = read.size or self._size, read.quality or self._quality
        self._add(read.type or "", read.usage)

    def _read_long(self, head: bytes, tail: bytes) -> None:
        self._add(text_of(TYPE, head), loosely(usage_near_end(tail), OpenAIUsage))

    def _add(self, kind: str, reported: OpenAIUsage | None) -> None:
        self._end = kind
        if kind not in self._ends:
            return
        self._count += 1
        one = Usage()
        said = reported is not None and all(reported.images_into(one))
        self._is_stated = self._is_stated and said
        self._sum.input_tokens += one.input_tokens
        self._sum.cached_tokens += one.cached_tokens
        self._sum.output_tokens += one.output_tokens
        for name, count in one.units.items():
            self._tokens[name] = self._tokens.get(name, 0) + count

    def _usage(self) -> tuple[Usage, Said]:
        self._sum.units = image_units(self._call, self._size, self._quality, self._count) | self._tokens
        self._sum.estimated = not self._is_stated or self._count == 0
        return self._sum, ALL


class ChatStream(StreamMeter):
    """Chat and text completions. `hides`: the client did not ask for the usage that we asked for."""

    def __init__(self, call: Call, vocabulary: Vocabulary, *, hides: bool) -> None:
        super().__init__(call, vocabulary)
        self._hides = hides
        self._reported: OpenAIUsage | None = None

    def _look(self, out: bytes) -> bytes:
        if not self._hides:
            return super()._look(out)
        shorter = _without_null(out)
        if shorter.rfind(b'"usage"') < 0 and shorter.rfind(_NO_CHOICES) < 0:
            return shorter
        places = [found.start() for found in STATED.finditer(out)]
        at = len(out)
        while (at := out.rfind(_NO_CHOICES, 0, at)) >= 0:
            places.append(at)
        parts: list[bytes] = []
        done = 0
        for start, end in sorted({bounds_of(out, place) for place in places}):
            parts += _without_null(out[done:start]), self._shown(out[start:end])
            done = end
        shown = b"".join((*parts, _without_null(out[done:])))
        return out if shown == out else shown

    def _shown(self, event: bytes) -> bytes:
        """What the client sees of an event: nothing of a usage that comes without a choice."""
        if b'"usage"' in event:
            data = data_of(event)
            read = event_of(data)
            if read.usage is not None:
                self._reported = read.usage
            if read.choices is not None and not read.choices and (read.usage is not None or is_empty(data)):
                return b""
        return _without_null(event)

    def _read(self, event: bytes) -> None:
        read = event_of(data_of(event))
        if read.usage is not None:
            self._reported = read.usage

    def _read_long(self, head: bytes, tail: bytes) -> None:
        reported = loosely(usage_near_end(tail), OpenAIUsage)
        if reported is not None:
            self._reported = reported

    def _usage(self) -> tuple[Usage, Said]:
        first = self._first
        self.model = event_of(data_of(first)).model or ""
        if (
            self._call.route.name == "chat"
            and isinstance(self._call.json, dict)
            and self._call.json.get("store") is True
        ):
            made = text_of(ID, first)
            self.object_ids = (made,) if made else ()
        usage = Usage()
        return usage, NOTHING if self._reported is None else self._reported.into(usage)

    def _verdict(self, complete: bool) -> Verdict:
        done = False
        for event in self._latest:
            data = data_of(event)
            # Some servers end the connection instead of sending an end mark, after the last choice has finished.
            done = done or data == DONE or (complete and _FINISHED.search(data) is not None)
            error = event_of(data).error
            if error is not None:
                return "error" if self._has_content or not is_overload(error) else "overloaded"
        return "ok" if done else "cut"
