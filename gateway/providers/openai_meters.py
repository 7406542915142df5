"""Replies of OpenAI's API and of what imitates it: where their usage stands, what ends a stream, what is an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.providers import texts
from gateway.providers.base import Verdict
from gateway.providers.meters import StreamMeter, WholeMeter, estimate, usage_near_end
from gateway.providers.reported import Number, OpenAIUsage, Said, loosely, milliseconds
from gateway.providers.vocabulary import Vocabulary
from gateway.sse import data_of, events_of
from gateway.usage import Usage

if TYPE_CHECKING:
    from gateway.call import Call

_NOTHING: Said = (False, False)
_ALL: Said = (True, True)
_DONE = b"[DONE]"
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')
_ID = re.compile(rb'"id"\s*:\s*"([^"\\]{1,200})"')
_TYPE = re.compile(rb'"type"\s*:\s*"([^"\\]{1,100})"')

#: Members of a chunk of a chat stream that say nothing of their own where there is no choice.
_FRAME = frozenset(
    {"id", "object", "created", "model", "service_tier", "system_fingerprint", "choices", "usage", "obfuscation"}
)


class Item(msgspec.Struct):
    """One item of a response's output."""

    container_id: str | None = None


class Reply(msgspec.Struct, kw_only=True):
    """What is needed of a whole reply, whichever route made it."""

    id: str | None = None
    model: str | None = None
    object: str | None = None
    status: str | None = None
    error: Any = None
    usage: OpenAIUsage | None = None
    output: list[Item] | None = None


class ImagesReply(Reply, kw_only=True):
    data: list[msgspec.Raw] | None = None
    size: str | None = None
    quality: str | None = None
    svg_usage: OpenAIUsage | None = None


class AudioReply(Reply, kw_only=True):
    duration: Number = None  # seconds


class StoredReply(Reply, kw_only=True):
    """A file, a batch, or whatever else a provider stores."""

    output_file_id: str | None = None
    error_file_id: str | None = None


class Event(msgspec.Struct, kw_only=True):
    """What is needed of one event of any stream."""

    type: str | None = None
    model: str | None = None
    size: str | None = None
    quality: str | None = None
    choices: list[msgspec.Raw] | None = None
    response: Reply | None = None
    error: Any = None
    usage: OpenAIUsage | None = None


_REPLY = msgspec.json.Decoder(Reply)
_IMAGES = msgspec.json.Decoder(ImagesReply)
_AUDIO = msgspec.json.Decoder(AudioReply)
_STORED = msgspec.json.Decoder(StoredReply)
_EVENT = msgspec.json.Decoder(Event)


class TextMeter(WholeMeter):
    """Chat and text completions, responses, embeddings. `pending_tokens` is billed as the output of a response that
    the provider goes on making in the background, where nobody will meter it."""

    _decoder: msgspec.json.Decoder[Any] = _REPLY

    def __init__(self, call: Call, vocabulary: Vocabulary, pending_tokens: int = 0) -> None:
        super().__init__(call, vocabulary)
        self._pending_tokens = pending_tokens

    def _of_body(self, body: bytes) -> tuple[Usage, Verdict]:
        try:
            reply = self._decoder.decode(body)
        except msgspec.ValidationError:
            reply = _loose_reply(body, self._decoder.type)
            if reply is None:
                return Usage(), "error"
        except (msgspec.DecodeError, UnicodeDecodeError):
            return (self._of_part(body) if body.lstrip()[:1] == b"{" else Usage()), "error"
        self.model = reply.model or ""
        verdict: Verdict = "ok"
        if reply.error is not None:
            verdict = "failed" if reply.object == "response" else "error"
        usage = self._usage_of(reply, body, verdict)
        self.object_ids = self._ids_of(reply)
        return usage, verdict

    def _usage_of(self, reply: Any, body: bytes, verdict: Verdict) -> Usage:
        usage = Usage()
        said = _NOTHING if reply.usage is None else reply.usage.into(usage)
        if said == _ALL or (verdict != "ok" and reply.usage is None):
            return usage
        if reply.status in ("queued", "in_progress"):
            usage.output_tokens = self._pending_tokens
            said = (said[0], True)
        output = texts.of_reply(msgspec.json.decode(body))
        estimate(usage, said, self._call, self._vocabulary, output)
        return usage

    def _ids_of(self, reply: Any) -> tuple[str, ...]:
        route, asked = self._call.route.name, self._call.json
        if not isinstance(asked, dict) or reply.id is None:
            return ()
        if route == "responses":
            made = [item.container_id for item in reply.output or () if item.container_id is not None]
            return (*(() if asked.get("store") is False else (reply.id,)), *dict.fromkeys(made))
        return (reply.id,) if route == "chat" and asked.get("store") is True else ()

    def _of_part(self, body: bytes) -> Usage:
        usage = Usage()
        begin = max(body.find(b'"content"'), body.find(b'"text"'), body.find(b'"arguments"'))
        came = texts.Texts([body[begin:].decode("utf-8", "replace")] if begin >= 0 else [])
        estimate(usage, _NOTHING, self._call, self._vocabulary, came)
        return usage

    def _of_ends(self, head: bytes, tail: bytes) -> Usage:
        self.model = _text(_MODEL, head)
        usage = Usage()
        reported = loosely(usage_near_end(tail), OpenAIUsage)
        said = _NOTHING if reported is None else reported.into(usage)
        if said != _ALL:
            estimate(usage, said, self._call, self._vocabulary, texts.Texts([tail.decode("utf-8", "replace")]))
        return usage


class EmbeddingsMeter(TextMeter):
    """Embeddings have no output, whatever came of them."""

    def _usage_of(self, reply: Any, body: bytes, verdict: Verdict) -> Usage:
        return self._input_only(reply.usage) if verdict == "ok" else Usage()

    def _of_part(self, body: bytes) -> Usage:
        return self._input_only(None)

    def _of_ends(self, head: bytes, tail: bytes) -> Usage:
        return self._input_only(loosely(usage_near_end(tail), OpenAIUsage))

    def _input_only(self, reported: OpenAIUsage | None) -> Usage:
        usage = Usage()
        said = reported is not None and reported.into(usage)[0]
        usage.output_tokens = 0
        if not said:
            estimate(usage, (False, True), self._call, self._vocabulary, texts.Texts())
        return usage


class ImagesMeter(TextMeter):
    """Images: how many, of which size and quality; and tokens, where the model is billed by them."""

    _decoder = _IMAGES

    def _usage_of(self, reply: Any, body: bytes, verdict: Verdict) -> Usage:
        if verdict != "ok":
            return Usage()
        usage = Usage(units=self._units(reply.size, reply.quality, None if reply.data is None else len(reply.data)))
        if reply.usage is not None:
            reply.usage.into(usage)
        else:
            usage.estimated = not (self._call.facts.model or "").startswith("dall-e")
        if reply.svg_usage is not None:
            svg = Usage()
            reply.svg_usage.into(svg)
            usage.units |= {"svg_input_tokens": svg.input_tokens, "svg_output_tokens": svg.output_tokens}
        return usage

    def _of_part(self, body: bytes) -> Usage:
        return Usage(units=self._units(None, None, None), estimated=True)

    def _of_ends(self, head: bytes, tail: bytes) -> Usage:
        usage = self._of_part(tail)
        reported = loosely(usage_near_end(tail), OpenAIUsage)
        usage.estimated = reported is None or not all(reported.into(usage))
        return usage

    def _units(self, size: str | None, quality: str | None, count: int | None) -> dict[str, int]:
        return image_units(self._call, size, quality, count)


class TranscriptMeter(TextMeter):
    """Transcriptions and translations: tokens or seconds, as the model is billed."""

    _decoder = _AUDIO

    def _usage_of(self, reply: Any, body: bytes, verdict: Verdict) -> Usage:
        usage = Usage()
        if verdict != "ok":
            return usage
        if reply.usage is not None:
            reply.usage.into(usage)
        if reply.duration is not None:
            usage.units.setdefault("audio_ms", milliseconds(reply.duration))
        usage.estimated = not usage.units and reply.usage is None
        return usage

    def _of_part(self, body: bytes) -> Usage:
        return Usage(estimated=True)

    def _of_ends(self, head: bytes, tail: bytes) -> Usage:
        return Usage(estimated=True)


class RequestMeter(TextMeter):
    """Everything that is billed a request: the reply is only asked what it made."""

    _decoder = _STORED

    def _usage_of(self, reply: Any, body: bytes, verdict: Verdict) -> Usage:
        return Usage(units={"requests": 1})

    def _ids_of(self, reply: Any) -> tuple[str, ...]:
        made = (reply.id if self._call.method == "POST" else None, reply.output_file_id, reply.error_file_id)
        return tuple(one for one in made if one is not None)

    def _of_part(self, body: bytes) -> Usage:
        return Usage(units={"requests": 1})

    def _of_ends(self, head: bytes, tail: bytes) -> Usage:
        return Usage(units={"requests": 1})


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
        read = _event(data_of(event))
        self._end = read.type or ""
        reported = read.usage if read.response is None else read.response.usage
        if reported is not None:
            self._reported = reported
        if read.response is not None and read.response.output:
            made = [item.container_id for item in read.response.output if item.container_id is not None]
            self.object_ids = tuple(dict.fromkeys((*self.object_ids, *made)))

    def _read_long(self, head: bytes, tail: bytes) -> None:
        self._end = _text(_TYPE, head)
        reported = loosely(usage_near_end(tail), OpenAIUsage)
        if reported is not None:
            self._reported = reported

    def _usage(self) -> tuple[Usage, Said]:
        self._name()
        usage = Usage(units=dict(self._units))
        if not self._bills:
            return usage, _ALL
        return usage, _NOTHING if self._reported is None else self._reported.into(usage)

    def _name(self) -> None:
        first = _event(data_of(self._first))
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
            read = _event(data)
            if read.error is not None or read.type == "error":
                return "error" if self._has_content or not _is_overload(read.error) else "overloaded"
            if read.type == "response.failed":
                return "failed"
            ended = ended or data == _DONE or read.type in self._ends
        if self._end == "response.failed":
            return "failed"
        return "ok" if ended or (complete and not self._ends) else "cut"


class ImageStream(EventsMeter):
    """Images as they become ready: each is stated, and billed, by an event of its own."""

    def __init__(self, call: Call, vocabulary: Vocabulary) -> None:
        super().__init__(call, vocabulary, ("image_generation.completed", "image_edit.completed"))
        self._count = 0
        self._size: str | None = None
        self._quality: str | None = None
        self._sum = Usage()
        self._is_stated = True

    def _read(self, event: bytes) -> None:
        read = _event(data_of(event))
        self._size, self._quality = read.size or self._size, read.quality or self._quality
        self._add(read.type or "", read.usage)

    def _read_long(self, head: bytes, tail: bytes) -> None:
        self._add(_text(_TYPE, head), loosely(usage_near_end(tail), OpenAIUsage))

    def _add(self, kind: str, reported: OpenAIUsage | None) -> None:
        self._end = kind
        if kind not in self._ends:
            return
        self._count += 1
        one = Usage()
        said = reported is not None and all(reported.into(one))
        self._is_stated = self._is_stated and said
        self._sum.input_tokens += one.input_tokens
        self._sum.cached_tokens += one.cached_tokens
        self._sum.output_tokens += one.output_tokens

    def _usage(self) -> tuple[Usage, Said]:
        self._sum.units = image_units(self._call, self._size, self._quality, self._count)
        self._sum.estimated = not self._is_stated or self._count == 0
        return self._sum, _ALL


class ChatStream(StreamMeter):
    """Chat and text completions. `hides`: the client did not ask for the usage that we asked for."""

    def __init__(self, call: Call, vocabulary: Vocabulary, *, hides: bool) -> None:
        super().__init__(call, vocabulary)
        self._hides = hides
        self._reported: OpenAIUsage | None = None

    def _look(self, out: bytes) -> bytes:
        if not self._hides:
            return super()._look(out)
        # A quote behind a comma opens a string, so this is a member called usage and never a part of a text.
        shorter = out.replace(b',"usage":null', b"")
        if b'"usage"' not in shorter and b'"choices":[]' not in shorter:
            return shorter
        return b"".join(filter(None, map(self._shown, events_of(out))))

    def _shown(self, event: bytes) -> bytes:
        """What the client sees of an event: nothing of a usage that comes without a choice."""
        if b'"usage"' not in event:
            return event
        data = data_of(event)
        read = _event(data)
        if read.usage is not None:
            self._reported = read.usage
        if read.choices is not None and not read.choices and (read.usage is not None or _is_empty(data)):
            return b""
        return event.replace(b',"usage":null', b"")

    def _read(self, event: bytes) -> None:
        read = _event(data_of(event))
        if read.usage is not None:
            self._reported = read.usage

    def _read_long(self, head: bytes, tail: bytes) -> None:
        reported = loosely(usage_near_end(tail), OpenAIUsage)
        if reported is not None:
            self._reported = reported

    def _usage(self) -> tuple[Usage, Said]:
        first = self._first
        self.model = _event(data_of(first)).model or ""
        if (
            self._call.route.name == "chat"
            and isinstance(self._call.json, dict)
            and self._call.json.get("store") is True
        ):
            made = _text(_ID, first)
            self.object_ids = (made,) if made else ()
        usage = Usage()
        return usage, _NOTHING if self._reported is None else self._reported.into(usage)

    def _verdict(self, complete: bool) -> Verdict:
        done = False
        for event in self._latest:
            data = data_of(event)
            done = done or data == _DONE
            error = _event(data).error
            if error is not None:
                return "error" if self._has_content or not _is_overload(error) else "overloaded"
        return "ok" if done else "cut"


def image_units(call: Call, size: str | None, quality: str | None, count: int | None) -> dict[str, int]:
    """Images by size and quality, from what the reply says or else from what was asked for."""
    asked = call.json if isinstance(call.json, dict) else {}
    size = size or _word(asked.get("size"), "1024x1024")
    quality = quality or _word(asked.get("quality"), "standard")
    n = call.facts.units.get("images", 1) if count is None else count
    return {"images": n, f"image:{size}:{quality}": n}


def _word(value: object, default: str) -> str:
    return value if isinstance(value, str) and 0 < len(value) <= 32 else default


def _event(data: bytes) -> Event:
    """One event's payload; an empty event where it is not JSON."""
    if data[:1] != b"{":
        return Event()
    try:
        return _EVENT.decode(data)
    except msgspec.ValidationError:
        return _loose_event(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Event()


def _loose_event(data: bytes) -> Event:
    value = msgspec.json.decode(data)
    choices = value.get("choices")
    response = value.get("response")
    return Event(
        type=_string(value.get("type")),
        model=_string(value.get("model")),
        choices=[msgspec.Raw() for _ in choices] if isinstance(choices, list) else None,
        response=_loosely_read(response, Reply) if isinstance(response, dict) else None,
        error=value.get("error"),
        usage=loosely(value.get("usage"), OpenAIUsage),
    )


def _loose_reply(body: bytes, shape: type[Reply]) -> Reply | None:
    value = msgspec.json.decode(body)
    return _loosely_read(value, shape) if isinstance(value, dict) else None


def _loosely_read(value: dict[str, Any], shape: type[Reply]) -> Reply:
    """A reply some of whose members have unexpected types: they count as absent."""
    reply = shape()
    for name in ("id", "model", "object", "status", "size", "quality", "output_file_id", "error_file_id"):
        if hasattr(reply, name):
            setattr(reply, name, _string(value.get(name)))
    reply.error = value.get("error")
    reply.usage = loosely(value.get("usage"), OpenAIUsage)
    return reply


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _text(pattern: re.Pattern[bytes], data: bytes) -> str:
    found = pattern.search(data)
    return "" if found is None else found[1].decode("utf-8", "replace")


def _is_empty(data: bytes) -> bool:
    """Whether an event without choices says nothing else (Azure's says what its filters found)."""
    value = msgspec.json.decode(data)
    return isinstance(value, dict) and _FRAME.issuperset(value)


def _is_overload(error: object) -> bool:
    """An error that came before any content is the provider's refusal to work now, unless it blames the request."""
    kind = error.get("type") if isinstance(error, dict) else None
    return kind != "invalid_request_error"
