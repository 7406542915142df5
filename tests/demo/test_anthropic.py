"""Anthropic's own SDK gets from the fake provider what it would get from the real one."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest

from gateway.demo import DemoServer
from gateway.demo.text import plain

SAID: Any = [{"role": "user", "content": "How high is the tide?"}]
INPUT = 12
TOOL: Any = {"name": "measure", "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}}}


async def test_message(claude: anthropic.AsyncAnthropic) -> None:
    answer = await claude.messages.create(model="demo-large", max_tokens=100, messages=SAID, system="abcd")
    assert answer.content[0].type == "text"
    assert answer.content[0].text == plain(24)
    assert (answer.model, answer.stop_reason) == ("demo-large", "end_turn")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (INPUT + 1, 24)
    assert answer.usage.cache_read_input_tokens == 0


async def test_message_honours_its_limit(claude: anthropic.AsyncAnthropic) -> None:
    answer = await claude.messages.create(model="m", max_tokens=3, messages=SAID)
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 3)


async def test_stream_runs_from_start_to_stop_with_cumulative_usage(claude: anthropic.AsyncAnthropic) -> None:
    stream = await claude.messages.create(model="m", max_tokens=100, messages=SAID, stream=True)
    events = [event async for event in stream]
    assert list(dict.fromkeys(event.type for event in events)) == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start, delta = events[0], events[-2]
    assert start.type == "message_start"
    assert (start.message.usage.input_tokens, start.message.usage.output_tokens) == (INPUT, 1)
    assert delta.type == "message_delta"
    assert delta.usage.output_tokens == 24
    assert sum(event.type == "content_block_delta" for event in events) == 24


async def test_stream_thinks_when_asked(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(
        model="m", max_tokens=2048, messages=SAID, thinking={"type": "enabled", "budget_tokens": 1024}
    ) as stream:
        answer = await stream.get_final_message()
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.usage.output_tokens == 24 + 8
    assert answer.usage.output_tokens_details is not None
    assert answer.usage.output_tokens_details.thinking_tokens == 8
    whole = await claude.messages.create(
        model="m", max_tokens=2048, messages=SAID, thinking={"type": "enabled", "budget_tokens": 1024}
    )
    assert [block.type for block in whole.content] == ["thinking", "text"]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "measure"}])
async def test_tool_use_when_forced(claude: anthropic.AsyncAnthropic, choice: Any) -> None:
    answer = await claude.messages.create(model="m", max_tokens=99, messages=SAID, tools=[TOOL], tool_choice=choice)
    assert answer.stop_reason == "tool_use"
    assert answer.content[0].type == "tool_use"
    assert answer.content[0].input == {"place": "tide"}
    async with claude.messages.stream(
        model="m", max_tokens=99, messages=SAID, tools=[TOOL], tool_choice=choice
    ) as stream:
        streamed = await stream.get_final_message()
    assert streamed.content[0].type == "tool_use"
    assert streamed.content[0].input == {"place": "tide"}
    assert streamed.usage.output_tokens == answer.usage.output_tokens


async def test_count_tokens_is_what_a_message_bills(claude: anthropic.AsyncAnthropic) -> None:
    counted = await claude.messages.count_tokens(model="m", messages=SAID, system="abcd", tools=[TOOL])
    answer = await claude.messages.create(model="m", max_tokens=1, messages=SAID, system="abcd", tools=[TOOL])
    assert counted.input_tokens == answer.usage.input_tokens


async def test_cached_tokens_stand_beside_the_input(claude: anthropic.AsyncAnthropic) -> None:
    answer = await claude.messages.create(
        model="m", max_tokens=9, messages=SAID, extra_headers={"x-fake": "input=1000; cached=600; cache-write=100"}
    )
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (300, 600, 100)


async def test_models_in_anthropics_shape(claude: anthropic.AsyncAnthropic) -> None:
    listed = await claude.models.list()
    assert [model.id for model in listed.data] == ["demo-small", "demo-large"]
    assert listed.data[0].type == "model"
    assert (await claude.models.retrieve("claude-x")).id == "claude-x"


async def test_errors_in_anthropics_shape(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.RateLimitError) as refused:
        await claude.messages.create(
            model="m", max_tokens=9, messages=SAID, extra_headers={"x-fake": "status=429; retry-after=7"}
        )
    assert refused.value.response.headers["retry-after"] == "7"
    body: Any = refused.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "rate_limit_error"
    assert body["request_id"] == refused.value.response.headers["request-id"]


async def test_overloaded_inside_a_stream(claude: anthropic.AsyncAnthropic) -> None:
    stream = await claude.messages.create(
        model="m", max_tokens=9, messages=SAID, stream=True, extra_headers={"x-fake": "overloaded"}
    )
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        _ = [event async for event in stream]


async def test_answers_carry_the_headers_of_the_real_one(claude: anthropic.AsyncAnthropic) -> None:
    answer = await claude.messages.with_raw_response.create(model="m", max_tokens=1, messages=SAID)
    assert answer.headers["request-id"].startswith("req_")
    assert "x-request-id" not in answer.headers
    assert answer.headers["anthropic-ratelimit-tokens-remaining"].isdigit()
    assert answer.headers["anthropic-ratelimit-requests-reset"].endswith("Z")


async def test_sync_client(fake: DemoServer) -> None:
    def ask() -> str:
        with (
            anthropic.Anthropic(base_url=fake.base_url, api_key="x", max_retries=0) as sdk,
            sdk.messages.stream(model="m", max_tokens=5, messages=SAID) as stream,
        ):
            return "".join(stream.text_stream)

    assert await asyncio.to_thread(ask) == plain(5)


async def test_missing_fields_are_refused(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="max_tokens: Field required"):
        await claude.post("/v1/messages", cast_to=object, body={"model": "m", "messages": SAID})
    with pytest.raises(anthropic.BadRequestError, match="messages: Field required"):
        await claude.post("/v1/messages", cast_to=object, body={"model": "m", "max_tokens": 5})
