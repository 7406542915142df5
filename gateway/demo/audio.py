"""Knows OpenAI's audio: speech out of text, text out of speech. The sound is silence, its length what is billed."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

import orjson

from gateway.demo.exchange import EVENTS, Exchange, Reply, as_json
from gateway.demo.generation import Generation, generate
from gateway.demo.multipart import Form, Part, read_form
from gateway.demo.refusal import ProviderError
from gateway.demo.text import plain
from gateway.demo.usage import Usage

TYPES = {
    "mp3": b"audio/mpeg",
    "opus": b"audio/ogg",
    "aac": b"audio/aac",
    "flac": b"audio/flac",
    "wav": b"audio/wav",
    "pcm": b"audio/pcm",
}
BYTES_PER_CHARACTER = 256  # of speech made
BYTES_PER_SECOND = 16_000  # of a recording whose header does not say
LONGEST_INPUT = 4096  # characters
PIECE = 4096  # bytes of sound in one event
TOKENS_PER_SECOND = 10  # of sound, where a model bills sound by tokens


def speech(exchange: Exchange) -> Reply:
    """POST /v1/audio/speech: silence, 256 bytes a character; as events where `stream_format` is sse."""
    body = exchange.body
    exchange.take_model()
    text = body.get("input")
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_INPUT:
        raise ProviderError(
            400, f"Invalid 'input': expected a string of 1 to {LONGEST_INPUT} characters.", param="input"
        )
    form = str(body.get("response_format") or "mp3")
    if form not in TYPES:
        raise ProviderError(400, f"Invalid 'response_format': one of {', '.join(TYPES)}.", param="response_format")
    sound = _silence(form, len(text) * BYTES_PER_CHARACTER)
    usage = exchange.bill(exchange.provider.tokens.text(text), characters=len(text))
    if body.get("stream_format") == "sse":
        exchange.streams = True
        return Reply(content_type=EVENTS, events=_speech_events(sound, usage), usage=usage)
    return Reply(sound, content_type=TYPES[form], usage=usage)


def _silence(form: str, size: int) -> bytes:
    if form != "wav":
        return bytes(size)
    rate = BYTES_PER_SECOND // 2
    return b"RIFF%bWAVEfmt %bdata%b%b" % (
        struct.pack("<I", 36 + size),
        struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16),
        struct.pack("<I", size),
        bytes(size),
    )


def _speech_events(sound: bytes, usage: Usage) -> Iterator[bytes]:
    for start in range(0, len(sound), PIECE):
        part = base64.b64encode(sound[start : start + PIECE])
        yield b'data: {"type":"speech.audio.delta","audio":"%b"}\n\n' % part
    figures = {"input_tokens": usage.input, "output_tokens": 0, "total_tokens": usage.input}
    yield b"data: %b\n\n" % orjson.dumps({"type": "speech.audio.done", "usage": figures})


def transcriptions(exchange: Exchange) -> Reply:
    """POST /v1/audio/transcriptions and /v1/audio/translations, both multipart."""
    request = exchange.request
    form = read_form(request.fields.get(b"content-type", b""), request.body)
    sound = form.file("file")
    exchange.model = form.field("model")
    if not exchange.model:
        raise ProviderError(400, "you must provide a model parameter", param="model")
    seconds = duration(sound)
    generation = generate(exchange, None)
    timed = "whisper" in exchange.model
    usage = exchange.bill(0 if timed else round(seconds * TOKENS_PER_SECOND), 0 if timed else generation.tokens)
    usage.units["seconds"] = seconds
    if form.field("stream") == "true" and not timed:
        exchange.streams = True
        events = _text_events(generation, _figures(usage, timed))
        return Reply(content_type=EVENTS, events=events, usage=usage)
    return _written(exchange, form, generation, usage, timed)


def duration(sound: Part) -> float:
    """Seconds of a recording: from a WAV header, otherwise one for each 16,000 bytes; at least a tenth."""
    data, rate = sound.data, BYTES_PER_SECOND
    if data[:4] == b"RIFF" and len(data) >= 44:
        rate = struct.unpack_from("<I", data, 28)[0]
        data = data[44:]
    return max(0.1, round(len(data) / max(1, rate), 2))


def _figures(usage: Usage, timed: bool) -> dict[str, Any]:
    if timed:
        return {"type": "duration", "seconds": usage.units["seconds"]}
    return {
        "type": "tokens",
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "input_token_details": {"text_tokens": 0, "audio_tokens": usage.input},
    }


def _written(exchange: Exchange, form: Form, generation: Generation, usage: Usage, timed: bool) -> Reply:
    text, kind = plain(generation.length), form.field("response_format", "json")
    seconds = float(usage.units["seconds"])
    if kind == "text":
        return Reply(text.encode() + b"\n", content_type=b"text/plain; charset=utf-8", usage=usage)
    if kind in ("srt", "vtt"):
        return Reply(_subtitles(kind, text, seconds), content_type=b"text/plain; charset=utf-8", usage=usage)
    answer: dict[str, Any] = {"text": text}
    if kind == "verbose_json":
        answer |= {"task": "transcribe", "language": "english", "duration": seconds}
        answer["segments"] = [_segment(text, seconds)]
    if exchange.script.usage != "no":
        answer["usage"] = None if exchange.script.usage == "null" else _figures(usage, timed)
    return as_json(answer, usage)


def _segment(text: str, seconds: float) -> dict[str, Any]:
    return {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": seconds,
        "text": text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": -0.2,
        "compression_ratio": 1.2,
        "no_speech_prob": 0.01,
    }


def _subtitles(kind: str, text: str, seconds: float) -> bytes:
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    end = f"{int(hours):02}:{int(minutes):02}:{left:06.3f}"
    if kind == "vtt":
        return f"WEBVTT\n\n00:00:00.000 --> {end}\n{text}\n\n".encode()
    return f"1\n00:00:00,000 --> {end.replace('.', ',')}\n{text}\n\n".encode()


def _text_events(generation: Generation, figures: dict[str, Any]) -> Iterator[bytes]:
    for piece in generation.pieces():
        yield b'data: {"type":"transcript.text.delta","delta":"%b"}\n\n' % piece
    done = {"type": "transcript.text.done", "text": generation.plain(), "usage": figures}
    yield b"data: %b\n\ndata: [DONE]\n\n" % orjson.dumps(done)
