"""The unmodified OpenAI SDK, sync, async and streaming, gets what the provider would have answered."""

from __future__ import annotations

import io
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from gateway.demo import DemoSettings, start

KEY = "tg-test-shared-key"
MESSAGES: Any = [{"role": "user", "content": "Why do tides come twice a day?"}]


def test_chat(openai: OpenAI) -> None:
    raw = openai.chat.completions.with_raw_response.create(model="demo-small", messages=MESSAGES, max_tokens=12)
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert raw.headers["x-tidegate-demo"]
    assert float(raw.headers["x-tidegate-cost"]) > 0
    assert raw.headers["x-tidegate-provider"] == "demo"
    assert raw.headers["x-upstream-request-id"]
    assert raw.headers["x-request-id"] != raw.headers["x-upstream-request-id"]


def test_chat_stream_without_usage_hides_it(openai: OpenAI) -> None:
    chunks = list(openai.chat.completions.create(model="demo-small", messages=MESSAGES, max_tokens=9, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks), "the usage chunk that the client did not ask for came through"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason


def test_chat_stream_with_usage(openai: OpenAI) -> None:
    chunks = list(
        openai.chat.completions.create(
            model="demo-small", messages=MESSAGES, max_tokens=9, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 9


async def test_async_chat_and_stream(gateway: Any) -> None:
    async with AsyncOpenAI(base_url=f"{gateway.address}/v1", api_key=KEY, max_retries=0) as client:
        answer = await client.chat.completions.create(model="demo-large", messages=MESSAGES)
        assert answer.model == "demo-large"
        stream = await client.chat.completions.create(model="demo-large", messages=MESSAGES, stream=True)
        assert len([chunk async for chunk in stream]) > 5


async def test_same_answer_as_straight_from_the_provider(gateway: Any) -> None:
    """Through the gateway and straight to a fake provider: the same text, usage and finish reason."""
    demo = await start(DemoSettings())
    try:
        async with AsyncOpenAI(base_url=f"{demo.base_url}/v1", api_key="any", max_retries=0) as straight:
            wanted = await straight.chat.completions.create(model="demo-small", messages=MESSAGES, max_tokens=10, n=2)
        async with AsyncOpenAI(base_url=f"{gateway.address}/v1", api_key=KEY, max_retries=0) as client:
            got = await client.chat.completions.create(model="demo-small", messages=MESSAGES, max_tokens=10, n=2)
    finally:
        await demo.stop()
    assert got.usage == wanted.usage
    assert got.choices == wanted.choices


def test_responses(openai: OpenAI) -> None:
    answer = openai.responses.create(model="demo-small", input="hello")
    assert answer.output_text
    assert openai.responses.retrieve(answer.id).id == answer.id
    events = list(openai.responses.create(model="demo-small", input="hello", stream=True))
    assert events[-1].type == "response.completed"
    follow_up = openai.responses.create(model="demo-small", input="and?", previous_response_id=answer.id)
    assert follow_up.id != answer.id


def test_completions_embeddings_moderations(openai: OpenAI) -> None:
    assert openai.completions.create(model="demo-small", prompt="hello").choices[0].text
    vectors = openai.embeddings.create(model="demo-small", input=["a", "b"]).data
    assert len(vectors) == 2
    assert len(vectors[0].embedding) > 8
    assert openai.moderations.create(model="demo-small", input="hello").results


def test_images(openai: OpenAI) -> None:
    assert openai.images.generate(model="demo-small", prompt="a tide", n=2, size="1024x1024").data
    assert openai.images.edit(model="demo-small", prompt="a tide", image=("a.png", b"\x89PNG" + bytes(64))).data


def test_audio(openai: OpenAI) -> None:
    speech = openai.audio.speech.create(model="demo-small", voice="alloy", input="hello")
    assert len(speech.read()) > 16
    heard = openai.audio.transcriptions.create(model="demo-small", file=("a.wav", bytes(200_000)))
    assert heard.text


def test_files_and_batches(openai: OpenAI) -> None:
    made = openai.files.create(file=("in.jsonl", io.BytesIO(b'{"custom_id": "1"}\n' * 1000)), purpose="batch")
    assert made.id in [file.id for file in openai.files.list()]
    assert openai.files.retrieve(made.id).id == made.id
    assert openai.files.content(made.id).read()
    batch = openai.batches.create(input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert batch.id in [one.id for one in openai.batches.list()]
    assert openai.batches.cancel(batch.id).id == batch.id
    assert openai.files.delete(made.id).deleted


def test_models_lists_what_the_key_may_use(openai: OpenAI) -> None:
    assert {model.id for model in openai.models.list()} == {"demo-small", "demo-large"}
    assert openai.models.retrieve("demo-small").id == "demo-small"


def test_unknown_model(openai: OpenAI) -> None:
    with pytest.raises(NotFoundError) as caught:
        openai.chat.completions.create(model="demo-smal", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    assert "demo-small" in caught.value.message


def test_wrong_type(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        openai.chat.completions.create(model="demo-small", messages=MESSAGES, max_tokens="many")  # type: ignore[call-overload]
    assert caught.value.param == "max_tokens"
