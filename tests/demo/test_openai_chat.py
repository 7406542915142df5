"""OpenAI's own SDK gets from the fake provider what it would get from the real one: chat, completions, responses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from gateway.demo import DemoServer
from gateway.demo.text import plain

SAID = [{"role": "user", "content": "How high is the tide?"}]  # 21 bytes: 6 tokens by quarters, 3 + 3 of framing
INPUT = 12
TOOL = {
    "type": "function",
    "function": {
        "name": "measure",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "metres": {"type": "number"}, "unit": {"enum": ["m", "ft"]}},
        },
    },
}


async def test_chat_plain(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="demo-small", messages=SAID)
    assert answer.model == "demo-small"
    assert answer.choices[0].message.content == plain(24)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (INPUT, 24, 36)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_chat_answers_any_model_by_its_name(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model='odd "name"/ü', messages=SAID)
    assert answer.model == 'odd "name"/ü'


async def test_chat_stream_is_one_token_a_chunk_and_no_usage_unasked(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="demo-small", messages=SAID, stream=True)
    chunks = [chunk async for chunk in stream]
    contents = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert contents[0] == ""
    assert len([content for content in contents if content]) == 24
    assert "".join(content for content in contents if content) == plain(24)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_chat_stream_usage_comes_last_when_asked_and_is_null_before(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="demo-small", messages=SAID, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (INPUT, 24)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_chat_honours_the_output_limit(client: openai.AsyncOpenAI, name: str) -> None:
    limit: dict[str, Any] = {name: 5}
    answer = await client.chat.completions.create(model="demo-small", messages=SAID, **limit)
    assert answer.choices[0].message.content == plain(5)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5


async def test_chat_n_choices_are_each_billed(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="demo-small", messages=SAID, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 72
    stream = await client.chat.completions.create(model="demo-small", messages=SAID, n=3, stream=True)
    texts = {0: "", 1: "", 2: ""}
    async for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert set(texts.values()) == {plain(24)}


@pytest.mark.parametrize(
    ("choice", "finish"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "measure"}}, "stop")],
)
async def test_chat_calls_a_tool_when_forced(client: openai.AsyncOpenAI, choice: Any, finish: str) -> None:
    answer = await client.chat.completions.create(model="m", messages=SAID, tools=[TOOL], tool_choice=choice)
    message = answer.choices[0].message
    assert message.content is None
    assert message.tool_calls
    called = message.tool_calls[0]
    assert called.type == "function"
    assert called.function.name == "measure"
    assert json.loads(called.function.arguments) == {"place": "tide", "metres": 1.5, "unit": "m"}
    assert answer.choices[0].finish_reason == finish


async def test_chat_streams_a_tool_call(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="m",
        messages=SAID,
        tools=[TOOL],
        tool_choice="required",
        stream=True,
        stream_options={"include_usage": True},
    )
    arguments, names, last, pieces = "", [], None, 0
    async for chunk in stream:
        last = chunk
        for part in chunk.choices[0].delta.tool_calls or [] if chunk.choices else []:
            assert part.function is not None
            names += [part.function.name] if part.function.name else []
            arguments += part.function.arguments or ""
            pieces += bool(part.function.arguments)
    assert names == ["measure"]
    assert json.loads(arguments) == {"place": "tide", "metres": 1.5, "unit": "m"}
    assert last is not None
    assert last.usage is not None
    assert last.usage.completion_tokens == pieces


async def test_chat_answers_text_when_tools_are_free(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", messages=SAID, tools=[TOOL])
    assert answer.choices[0].message.content == plain(24)


class Level(BaseModel):
    place: str
    metres: float


async def test_chat_answers_json_when_asked(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", messages=SAID, response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)
    parsed = await client.chat.completions.parse(model="m", messages=SAID, response_format=Level)
    assert parsed.choices[0].message.parsed == Level(place="tide", metres=1.5)


async def test_sync_client(fake: DemoServer) -> None:
    def ask() -> tuple[str, str]:
        with openai.OpenAI(base_url=f"{fake.base_url}/v1", api_key="x", max_retries=0) as sdk:
            answer = sdk.chat.completions.create(model="demo-small", messages=SAID)
            stream = sdk.chat.completions.create(model="demo-small", messages=SAID, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return answer.choices[0].message.content or "", streamed

    assert await asyncio.to_thread(ask) == (plain(24), plain(24))


async def test_bad_requests_are_refused_as_the_real_one_does(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="", messages=SAID)
    assert refused.value.param == "model"
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="m", messages=[])
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="m", messages=SAID, n=0)
    with pytest.raises(openai.BadRequestError, match="not found in 'tools'"):
        await client.chat.completions.create(
            model="m", messages=SAID, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "other"}}
        )


async def test_completions(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="m", prompt="abcd")
    assert answer.choices[0].text == plain(16)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1, 16)
    several = await client.completions.create(model="m", prompt=[[1, 2, 3], [4]], max_tokens=2)
    assert len(several.choices) == 2
    assert several.usage is not None
    assert (several.usage.prompt_tokens, several.usage.completion_tokens) == (4, 4)


async def test_completions_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="m", prompt="abcd", max_tokens=30, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == plain(24)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24


async def test_responses_plain(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="m", input="How high is the tide?", instructions="abcd")
    assert answer.status == "completed"
    assert answer.output_text == plain(24)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (INPUT + 1, 24)


async def test_responses_stream_has_the_named_events_and_usage_at_its_end(client: openai.AsyncOpenAI) -> None:
    stream = await client.responses.create(model="m", input="hello", max_output_tokens=100, stream=True)
    events = [event async for event in stream]
    names = list(dict.fromkeys(event.type for event in events))
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert sum(event.type == "response.output_text.delta" for event in events) == 24
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 24
    assert last.response.output_text == plain(24)


async def test_responses_stream_helper_and_limit(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="m", input="hello") as stream:
        final = await stream.get_final_response()
    assert final.output_text == plain(24)
    stream = await client.responses.create(model="m", input="hello", max_output_tokens=20, stream=True)
    last = [event async for event in stream][-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"


async def test_responses_function_call(client: openai.AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "strict": False, **TOOL["function"]}  # type: ignore[dict-item]
    answer = await client.responses.create(model="m", input="hello", tools=[tool], tool_choice="required")
    called = answer.output[0]
    assert called.type == "function_call"
    assert json.loads(called.arguments)["unit"] == "m"
    async with client.responses.stream(model="m", input="hello", tools=[tool], tool_choice="required") as stream:
        final = await stream.get_final_response()
    assert final.output[0].type == "function_call"


async def test_responses_are_kept_read_and_deleted(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="m", input="hello")
    assert (await client.responses.retrieve(answer.id)).output_text == plain(24)
    follow = await client.responses.create(model="m", input="hello", previous_response_id=answer.id)
    assert answer.usage is not None
    assert follow.usage is not None
    assert follow.usage.input_tokens == answer.usage.input_tokens + answer.usage.total_tokens
    assert (await client.responses.input_items.list(answer.id)).data == []
    await client.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(answer.id)
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model="m", input="hello", previous_response_id=answer.id)
    unkept = await client.responses.create(model="m", input="hello", store=False)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(unkept.id)


async def test_responses_input_tokens(client: openai.AsyncOpenAI) -> None:
    counted = await client.responses.input_tokens.count(model="m", input="How high is the tide?")
    assert counted.input_tokens == INPUT
