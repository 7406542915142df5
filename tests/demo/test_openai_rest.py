"""The rest of OpenAI's surface, through its own SDK: vectors, images, sound, files, batches, models."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import openai
import pytest

from gateway.demo import DemoServer
from gateway.demo.images import PIXEL
from gateway.demo.text import plain


async def test_embeddings_are_the_same_for_the_same_text_and_far_from_others(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="m", input=["tide", "tide", "gate"])
    first, same, other = (item.embedding for item in answer.data)
    assert len(first) == 1536
    assert first == same
    assert abs(cosine(first, other)) < 0.3
    assert answer.usage.prompt_tokens == 3


def cosine(left: list[float], right: list[float]) -> float:
    product = sum(a * b for a, b in zip(left, right, strict=True))
    return product / math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))


async def test_embeddings_as_floats_and_base64_are_equal(client: openai.AsyncOpenAI) -> None:
    floats = await client.embeddings.create(model="m", input="tide", dimensions=64, encoding_format="float")
    packed = await client.embeddings.create(model="m", input="tide", dimensions=64)  # the SDK asks for base64
    assert len(floats.data[0].embedding) == 64
    assert floats.data[0].embedding == pytest.approx(packed.data[0].embedding, abs=1e-7)


@pytest.mark.parametrize(
    ("given", "vectors", "tokens"), [([1, 2, 3], 1, 3), ([[1, 2], [3]], 2, 3), (["ab", "cd"], 2, 2)]
)
async def test_embeddings_take_texts_and_tokens(
    client: openai.AsyncOpenAI, given: Any, vectors: int, tokens: int
) -> None:
    answer = await client.embeddings.create(model="m", input=given, dimensions=8)
    assert (len(answer.data), answer.usage.total_tokens) == (vectors, tokens)


async def test_embeddings_refuse_bad_input(client: openai.AsyncOpenAI) -> None:
    for bad in ([], {"a": 1}, [None]):
        with pytest.raises(openai.BadRequestError):
            await client.embeddings.create(model="m", input=bad)  # type: ignore[arg-type]  # it is meant to be wrong


async def test_moderations(client: openai.AsyncOpenAI) -> None:
    answer = await client.moderations.create(input=["a calm sea", "violence at sea"])
    assert [result.flagged for result in answer.results] == [False, True]
    assert answer.results[1].categories.violence is True
    assert answer.results[0].category_scores.hate < 0.01


async def test_images_are_billed_by_size_and_quality(client: openai.AsyncOpenAI, fake: DemoServer) -> None:
    answer = await client.images.generate(model="gpt-image-1", prompt="abcd", n=2, size="1536x1024", quality="low")
    assert answer.data is not None
    assert [image.b64_json for image in answer.data] == [PIXEL, PIXEL]
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (1, 800)
    assert (answer.size, answer.quality) == ("1536x1024", "low")


async def test_images_as_links_stream_and_edits(client: openai.AsyncOpenAI) -> None:
    linked = await client.images.generate(model="dall-e-3", prompt="abcd")
    assert linked.data is not None
    assert str(linked.data[0].url).startswith("https://")
    stream = await client.images.generate(model="gpt-image-1", prompt="abcd", stream=True, partial_images=1)
    events = [event async for event in stream]
    assert events[-1].type == "image_generation.completed"
    assert events[-1].usage.output_tokens == 1056
    edited = await client.images.edit(model="gpt-image-1", image=("a.png", b"\x89PNG"), prompt="abcd")
    assert edited.usage is not None
    assert edited.usage.input_tokens_details.image_tokens == 323
    with pytest.deprecated_call():
        varied = await client.images.create_variation(image=("a.png", b"\x89PNG"), n=2, response_format="url")
    assert varied.data is not None
    assert len(varied.data) == 2


async def test_speech_is_as_long_as_its_text(client: openai.AsyncOpenAI) -> None:
    answer = await client.audio.speech.create(model="tts-1", voice="alloy", input="x" * 100)
    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert len(answer.content) == 100 * 256
    wave = await client.audio.speech.create(model="tts-1", voice="alloy", input="x", response_format="wav")
    assert wave.content[:4] == b"RIFF"
    with pytest.raises(openai.BadRequestError):
        await client.audio.speech.create(model="tts-1", voice="alloy", input="")


async def test_transcriptions_bill_seconds_or_tokens(client: openai.AsyncOpenAI) -> None:
    wave = await client.audio.speech.create(model="tts-1", voice="alloy", input="x" * 125, response_format="wav")
    sound = ("a.wav", wave.content)
    timed = await client.audio.transcriptions.create(model="whisper-1", file=sound)
    assert timed.text == plain(24)
    assert timed.usage is not None
    assert timed.usage.type == "duration"
    assert timed.usage.seconds == 2.0
    counted = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=sound)
    assert counted.usage is not None
    assert counted.usage.type == "tokens"
    assert (counted.usage.input_tokens, counted.usage.output_tokens) == (20, 24)


async def test_transcriptions_in_other_forms(client: openai.AsyncOpenAI) -> None:
    sound = ("a.mp3", bytes(32_000))
    text: Any = await client.audio.transcriptions.create(model="whisper-1", file=sound, response_format="text")
    assert text.strip() == plain(24)
    verbose = await client.audio.transcriptions.create(model="whisper-1", file=sound, response_format="verbose_json")
    assert verbose.duration == 2.0
    with pytest.deprecated_call():
        subtitles: Any = await client.audio.translations.create(model="whisper-1", file=sound, response_format="srt")
    assert "00:00:00,000 --> 00:00:02,000" in subtitles
    stream = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=sound, stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == plain(24)


async def test_files(client: openai.AsyncOpenAI) -> None:
    content = b'{"a": 1}\r\n--not-the-boundary\r\n\x00\xff'
    made = await client.files.create(file=("data.jsonl", content), purpose="batch")
    assert (made.bytes, made.filename, made.purpose, made.status) == (len(content), "data.jsonl", "batch", "processed")
    other = await client.files.create(file=("b.txt", b"b"), purpose="user_data")
    assert [item.id async for item in client.files.list()] == [other.id, made.id]
    assert [item.id async for item in client.files.list(purpose="batch")] == [made.id]
    assert [item.id async for item in client.files.list(limit=1, order="asc")] == [made.id, other.id]
    assert (await client.files.retrieve(made.id)).id == made.id
    assert (await client.files.content(made.id)).content == content
    assert (await client.files.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.content(made.id)


async def test_batches_run_every_line(client: openai.AsyncOpenAI) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "How high is the tide?"}]}
    lines = [
        {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number in range(3)
    ]
    lines[2]["body"] = {"model": "m"}
    content = "\n".join(json.dumps(line) for line in lines).encode()
    source = await client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = await client.batches.create(
        input_file_id=source.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    assert batch.status == "validating"
    assert (await client.batches.retrieve(batch.id)).status == "in_progress"
    done = await client.batches.retrieve(batch.id)
    assert done.status == "completed"
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens) == (24, 48)
    assert done.output_file_id is not None
    output = [json.loads(line) for line in (await client.files.content(done.output_file_id)).text.splitlines()]
    assert [line["custom_id"] for line in output] == ["c0", "c1", "c2"]
    assert [line["response"]["status_code"] for line in output] == [200, 200, 400]
    assert [item.id async for item in client.batches.list()] == [batch.id]
    with pytest.raises(openai.ConflictError):
        await client.batches.cancel(batch.id)


async def test_batches_can_be_cancelled(client: openai.AsyncOpenAI) -> None:
    source = await client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    batch = await client.batches.create(
        input_file_id=source.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert (await client.batches.cancel(batch.id)).status == "cancelling"
    assert (await client.batches.retrieve(batch.id)).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        await client.batches.create(input_file_id="file-no", endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        await client.batches.retrieve("batch_no")


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["demo-small", "demo-large"]
    assert (await client.models.retrieve("gpt-4o")).id == "gpt-4o"


async def test_other_paths_echo(client: openai.AsyncOpenAI) -> None:
    answer: Any = await client.post("/vector_stores?x=1", cast_to=object, body={"model": "m", "odd": [1]})
    assert (answer["method"], answer["path"], answer["query"]) == ("POST", "/v1/vector_stores", "x=1")
    assert answer["body"] == {"model": "m", "odd": [1]}


async def test_answers_carry_the_headers_of_the_real_one(client: openai.AsyncOpenAI) -> None:
    answer = await client.models.with_raw_response.list()
    assert answer.headers["x-request-id"].startswith("req_")
    for name in (
        "openai-processing-ms",
        "openai-version",
        "openai-organization",
        "date",
        "x-ratelimit-remaining-tokens",
    ):
        assert name in answer.headers


async def test_a_wrong_key_is_refused(run: Any) -> None:
    server = await run(key="sk-right")
    async with openai.AsyncOpenAI(base_url=f"{server.base_url}/v1", api_key="sk-wrong", max_retries=0) as sdk:
        with pytest.raises(openai.AuthenticationError) as refused:
            await sdk.models.list()
        assert refused.value.code == "invalid_api_key"
        assert (await sdk.with_options(api_key="sk-right").models.list()).data


def test_the_pixel_is_a_png() -> None:
    import base64
    import zlib

    raw = base64.b64decode(PIXEL)
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    at = 8
    while at < len(raw):
        (size,) = struct.unpack_from(">I", raw, at)
        kind = raw[at + 4 : at + 8 + size]
        assert zlib.crc32(kind) == struct.unpack_from(">I", raw, at + 8 + size)[0]
        at += 12 + size
