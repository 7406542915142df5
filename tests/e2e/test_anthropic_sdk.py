"""The unmodified Anthropic SDK, with the same base URL as everybody else."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic, AuthenticationError, NotFoundError

KEY = "tg-test-shared-key"
MESSAGES: Any = [{"role": "user", "content": "Why do tides come twice a day?"}]


def test_message(anthropic: Anthropic) -> None:
    raw = anthropic.messages.with_raw_response.create(model="demo-small", max_tokens=11, messages=MESSAGES)
    answer = raw.parse()
    assert answer.usage.output_tokens == 11
    assert raw.headers["x-tidegate-demo"]
    assert float(raw.headers["x-tidegate-cost"]) > 0
    assert raw.headers["anthropic-ratelimit-requests-limit"]


def test_stream(anthropic: Anthropic) -> None:
    with anthropic.messages.stream(model="demo-small", max_tokens=11, messages=MESSAGES) as stream:
        text = "".join(stream.text_stream)
        assert text
        assert stream.get_final_message().usage.output_tokens == 11


async def test_async_stream(gateway: Any) -> None:
    async with AsyncAnthropic(base_url=gateway.address, api_key=KEY, max_retries=0) as client:
        events = [
            event.type
            async for event in await client.messages.create(
                model="demo-large", max_tokens=5, messages=MESSAGES, stream=True
            )
        ]
    assert events[0] == "message_start"
    assert events[-1] == "message_stop"


def test_count_tokens(anthropic: Anthropic) -> None:
    assert anthropic.messages.count_tokens(model="demo-small", messages=MESSAGES).input_tokens > 0


def test_models_in_anthropic_shape(anthropic: Anthropic) -> None:
    assert {model.id for model in anthropic.models.list()} == {"demo-small", "demo-large"}


def test_bearer_works_too(gateway: Any) -> None:
    with Anthropic(base_url=gateway.address, auth_token=KEY, api_key=None, max_retries=0) as client:
        assert client.messages.create(model="demo-small", max_tokens=3, messages=MESSAGES).content


def test_errors_in_the_callers_dialect(gateway: Any, anthropic: Anthropic) -> None:
    with pytest.raises(NotFoundError) as caught:
        anthropic.messages.create(model="nothing", max_tokens=3, messages=MESSAGES)
    assert caught.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    with (
        Anthropic(base_url=gateway.address, api_key="wrong", max_retries=0) as client,
        pytest.raises(AuthenticationError) as refused,
    ):
        client.messages.create(model="demo-small", max_tokens=3, messages=MESSAGES)
    assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
