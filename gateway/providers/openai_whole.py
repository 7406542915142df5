"""Whole replies of OpenAI's API and of what imitates it: where their usage stands, and what is an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.providers import texts
from gateway.providers.base import Meter, Verdict
from gateway.providers.meters import HEAD_BYTES, WholeMeter, estimate, usage_near_end
from gateway.providers.openai_shapes import ALL, AUDIO, IMAGES, MODEL, NOTHING, REPLY, STORED, loose_reply, text_of
from gateway.providers.reported import UNREADABLE, AnthropicUsage, OpenAIUsage, loosely, milliseconds, read_any
from gateway.providers.vocabulary import Vocabulary
from gateway.usage import Usage

if TYPE_CHECKING:
    from gateway.call import Call

_SIZE = re.compile(rb'"size"\s*+:\s*+"([0-9a-z]{1,16})"')
_QUALITY = re.compile(rb'"quality"\s*+:\s*+"([a-z]{1,16})"')

#: The end of a subtitle: "--> 01:02:03,456" (SubRip) or "--> 02:03.456" (WebVTT).
_SUBTITLE = re.compile(rb"--> (?:(\d+):)?(\d\d):(\d\d)[.,](\d{3})")
#: 150 words a minute of 6 letters each, the space included.
SPOKEN_BYTES_A_SECOND = 15


class TextMeter(WholeMeter):
    """Chat and text completions, responses, embeddings. `pending_tokens` is billed as the output of a response that
    the provider goes on making in the background, where nobody will meter it."""

    _decoder: msgspec.json.Decoder[Any] = REPLY
    pending_tokens = 0

    def _of_body(self, body: bytes) -> tuple[Usage, Verdict]:
        try:
            reply = self._decoder.decode(body)
        except msgspec.ValidationError:
            value = read_any(body)
            if value is None:
                return Usage(), "error"
            reply = loose_reply(value, self._decoder.type)
        except UNREADABLE:
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
        said = NOTHING if reply.usage is None else reply.usage.into(usage)
        if said == ALL or (verdict != "ok" and reply.usage is None):
            return usage
        if reply.status in ("queued", "in_progress"):
            usage.output_tokens = self.pending_tokens
            said = (said[0], True)
        output = texts.of_reply(read_any(body))
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
        estimate(usage, NOTHING, self._call, self._vocabulary, texts.of_part(body))
        return usage

    def _of_ends(self, head: bytes, tail: bytes) -> Usage:
        self.model = text_of(MODEL, head)
        usage = Usage()
        reported = loosely(usage_near_end(tail), OpenAIUsage)
        said = NOTHING if reported is None else reported.into(usage)
        if said != ALL:
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

    _decoder = IMAGES

    def _usage_of(self, reply: Any, body: bytes, verdict: Verdict) -> Usage:
        if verdict != "ok":
            return Usage()
        usage = Usage(units=self._units(reply.size, reply.quality, None if reply.data is None else len(reply.data)))
        if reply.usage is not None:
            reply.usage.images_into(usage)
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
        said = head + tail
        size, quality = text_of(_SIZE, said), text_of(_QUALITY, said)
        usage = Usage(units=self._units(size, quality, None))
        reported = loosely(usage_near_end(tail), OpenAIUsage)
        usage.estimated = reported is None or not all(reported.images_into(usage)) or not (size and quality)
        return usage

    def _units(self, size: str | None, quality: str | None, count: int | None) -> dict[str, int]:
        return image_units(self._call, size, quality, count)


class TranscriptMeter(TextMeter):
    """Transcriptions and translations: tokens or seconds, as the model is billed."""

    _decoder = AUDIO

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


class SpokenMeter(Meter):
    """A transcript as plain text or subtitles, which does not say how long the audio was: subtitles by their last time,
    text by how fast people speak."""

    def __init__(self) -> None:
        self._size = 0  # bytes
        self._tail = b""

    def feed(self, chunk: bytes) -> bytes:
        self._size += len(chunk)
        self._tail = (self._tail + chunk)[-HEAD_BYTES:]
        return chunk

    def finish(self, complete: bool) -> tuple[bytes, Usage, Verdict]:
        times = _SUBTITLE.findall(self._tail)
        if times:
            hours, minutes, seconds, milli = (int(part or 0) for part in times[-1])
            audio_ms = ((hours * 60 + minutes) * 60 + seconds) * 1000 + milli
        else:
            audio_ms = self._size * 1000 // SPOKEN_BYTES_A_SECOND
        return b"", Usage(units={"audio_ms": audio_ms}, estimated=True), "ok" if complete else "cut"


class RequestMeter(TextMeter):
    """Everything that is billed a request: the reply is only asked what it made, and on paths that we know nothing
    about what it says that it consumed, in the provider's own `shape`. Any JSON will do."""

    _decoder = STORED

    def __init__(
        self, call: Call, vocabulary: Vocabulary, shape: type[OpenAIUsage | AnthropicUsage] = OpenAIUsage
    ) -> None:
        super().__init__(call, vocabulary)
        self._shape = shape

    def _of_body(self, body: bytes) -> tuple[Usage, Verdict]:
        if body.lstrip()[:1] == b"[":
            return Usage(units={"requests": 1}), "ok"
        return super()._of_body(body)

    def _usage_of(self, reply: Any, body: bytes, verdict: Verdict) -> Usage:
        return self._stated((read_any(body) or {}).get("usage") if states_usage(self._call) else None)

    def _ids_of(self, reply: Any) -> tuple[str, ...]:
        if not self._call.route.objects:
            return ()
        made = (reply.id if self._call.method == "POST" else None, reply.output_file_id, reply.error_file_id)
        return tuple(one for one in made if one is not None)

    def _of_part(self, body: bytes) -> Usage:
        return Usage(units={"requests": 1})

    def _of_ends(self, head: bytes, tail: bytes) -> Usage:
        return self._stated(usage_near_end(tail) if states_usage(self._call) else None)

    def _stated(self, stated: Any) -> Usage:
        usage = Usage()
        if self._shape is AnthropicUsage:
            (loosely(stated, AnthropicUsage) or AnthropicUsage()).into(usage)
        else:
            (loosely(stated, OpenAIUsage) or OpenAIUsage()).into(usage)
        usage.units["requests"] = 1
        return usage


def states_usage(call: Call) -> bool:
    """Whether the usage in a reply is this call's own: what is only read again was billed when it was made."""
    return call.route.name == "other" and call.method == "POST"


def image_units(call: Call, size: str | None, quality: str | None, count: int | None) -> dict[str, int]:
    """Images by size and quality, from what the reply says or else from what was asked for, in JSON or in a form."""
    asked = call.facts.form or (call.json if isinstance(call.json, dict) else {})
    size = size or _word(asked.get("size"), "1024x1024")
    quality = quality or _word(asked.get("quality"), "standard")
    n = _asked_images(call) if count is None else count
    return {"images": n, f"image:{size}:{quality}": n}


def _asked_images(call: Call) -> int:
    """How many; a field behind the file was not there yet when the call was decided."""
    said = (call.facts.form or {}).get("n", "").strip()
    return min(int(said), 100_000) if said.isdecimal() and len(said) < 9 else call.facts.units.get("images", 1)


def _word(value: object, default: str) -> str:
    return value if isinstance(value, str) and 0 < len(value) <= 32 else default
