"""A whole answer given as a stream and the other way round: nothing of it is lost, and SDKs read it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from gateway import reshape
from gateway.usage import Usage

TEXT = st.text(max_size=60)
CALLS = st.lists(
    st.builds(
        lambda name, arguments: {
            "id": f"call_{name}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        TEXT,
        TEXT.map(json.dumps),
    ),
    min_size=1,
    max_size=3,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": TEXT | st.none(), "refusal": TEXT | st.none()},
    optional={"tool_calls": CALLS},
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def chat(messages: list[dict[str, Any]]) -> dict[str, Any]:
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": "stop"}
        for index, message in enumerate(messages)
    ]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**head, "choices": choices, "usage": USAGE}


def there_and_back(route: str, body: dict[str, Any], *, usage: bool = True) -> dict[str, Any]:
    events = reshape.stream_of(route, json.dumps(body).encode(), usage=usage)
    assert events is not None
    whole = reshape.whole_of(route, b"".join(events), Usage(input_tokens=3, output_tokens=4))
    assert whole is not None
    found: dict[str, Any] = json.loads(whole)
    return found


@given(st.lists(MESSAGE, min_size=1, max_size=3))
def test_nothing_of_a_chat_is_lost(messages: list[dict[str, Any]]) -> None:
    assert there_and_back("chat", chat(messages)) == chat(messages)


@given(st.lists(TEXT, min_size=1, max_size=3))
def test_nothing_of_a_completion_is_lost(said: list[str]) -> None:
    choices = [
        {"text": text, "index": index, "logprobs": None, "finish_reason": "length"} for index, text in enumerate(said)
    ]
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    body = {**head, "choices": choices, "usage": USAGE}
    assert there_and_back("completions", body) == body


@given(
    st.lists(
        st.one_of(
            st.builds(lambda text: {"type": "text", "text": text}, TEXT),
            st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "c2ln"}, TEXT),
            st.builds(lambda text: {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": text}}, TEXT),
        ),
        max_size=4,
    )
)
def test_nothing_of_a_message_is_lost(content: list[dict[str, Any]]) -> None:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    usage = {"input_tokens": 3, "output_tokens": 40, "cache_read_input_tokens": 0}
    body = {**head, "content": content, "stop_reason": "end_turn", "usage": usage}
    assert there_and_back("messages", body) == body


def test_a_stream_that_hid_its_usage_has_what_was_billed() -> None:
    body = chat([{"role": "assistant", "content": "hi", "refusal": None}])
    told = there_and_back("chat", body, usage=False)["usage"]
    assert {name: told[name] for name in USAGE} == USAGE


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("chat", chat([{"role": "assistant", "content": "hi", "audio": {"id": "a"}}])),
        ("chat", {**chat([{"role": "assistant", "content": "hi"}]), "new": 1}),
        ("chat", chat([{"role": "assistant", "content": [{"type": "text"}]}])),
        ("chat", {"error": {"message": "no"}}),
        ("messages", {"type": "message", "content": [{"type": "server_tool_use"}], "usage": {}}),
        ("responses", {"object": "response", "status": "completed", "output": [{"type": "web_search_call"}]}),
        ("responses", {"object": "response", "status": "failed", "output": []}),
    ],
)
def test_what_is_not_known_is_left_alone(route: str, body: dict[str, Any]) -> None:
    assert reshape.stream_of(route, json.dumps(body).encode(), usage=False) is None


@pytest.mark.parametrize("stream", [b"", b"data: 1\n\n", b'data: {"choices": []}\n\n', b"data: [DONE]\n\n"])
@pytest.mark.parametrize("route", sorted(reshape.ROUTES))
def test_half_a_stream_is_no_answer(route: str, stream: bytes) -> None:
    assert reshape.whole_of(route, stream, Usage()) is None


ASKED = {
    "chat": ("/v1/chat/completions", {}),
    "completions": ("/v1/completions", {}),
    "responses": ("/v1/responses", {"store": False}),
    "messages": ("/v1/messages", {"model": "claude"}),
}


def question(site: Any, route: str) -> tuple[str, dict[str, Any]]:
    path, more = ASKED[route]
    body = {**site.chat(), **more}
    if route == "completions":
        body["prompt"] = body.pop("messages")[0]["content"]
    if route == "responses":
        body["input"] = body.pop("messages")[0]["content"]
        body["max_output_tokens"] = body.pop("max_tokens")
    return path, body


@pytest.mark.parametrize("route", sorted(ASKED))
async def test_whichever_way_it_was_first_asked(site: Any, route: str) -> None:
    path, body = question(site, route)
    whole = await site.ask(body, path=path)
    before = site.upstream()
    streamed = await site.ask({**body, "stream": True}, path=path)
    assert streamed.headers["x-tidegate-cache"] == "hit"
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.content.count(b"data: ") > 3
    path, body = question(site, route)
    first = await site.ask({**body, "stream": True}, path=path)
    again = await site.ask(body, path=path)
    assert (first.headers["x-tidegate-cache"], again.headers["x-tidegate-cache"]) == ("miss", "hit")
    assert again.headers["content-type"] == "application/json"
    assert again.json().keys() == whole.json().keys()
    assert site.upstream() == before + 1


async def test_the_sdks_read_either_form(site: Any) -> None:
    _, body = question(site, "chat")
    sdk = AsyncOpenAI(base_url=f"{site.server.address}/v1", api_key="tg-acme-secret-key")
    whole = await sdk.chat.completions.create(**body)
    chunks = [one async for one in await sdk.chat.completions.create(**body, stream=True)]
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == whole.choices[0].message.content
    told = await sdk.chat.completions.create(**body, stream=True, stream_options={"include_usage": True})
    assert [one.usage async for one in told][-1] == whole.usage
    _, body = question(site, "responses")
    whole_response = await sdk.responses.create(**body)
    events = [event async for event in await sdk.responses.create(**body, stream=True)]
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert events[-1].response.output_text == whole_response.output_text
    said = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(said) == whole_response.output_text
    await sdk.close()
    _, body = question(site, "messages")
    other = AsyncAnthropic(base_url=site.server.address, api_key="tg-acme-secret-key")
    body["extra_body"] = {"temperature": body.pop("temperature")}  # the SDK has no argument of that name any more
    async with other.messages.stream(**body) as stream:
        streamed = await stream.get_final_message()
    message = await other.messages.create(**body)
    assert [one.text for one in message.content] == [one.text for one in streamed.content]
    assert message.usage.output_tokens == streamed.usage.output_tokens
    await other.close()


async def test_a_stream_given_again_may_be_paced(open_site: Any) -> None:
    site = open_site("[policy.cache]\npace_ms = 30")
    body = site.chat(stream=True)
    await site.ask(body, x_fake="chunk-ms=60")  # far enough apart that they come one by one
    began = time.monotonic()
    again = await site.ask(body, x_fake="chunk-ms=60")
    assert again.headers["x-tidegate-cache"] == "hit"
    assert time.monotonic() - began > 0.03 * 4
