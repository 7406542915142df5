"""Knows OpenAI's legacy completions, plain and streamed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson

import gateway.demo.usage as bills
from gateway.demo.chat import DONE, cap_of
from gateway.demo.exchange import EVENTS, Exchange, Reply
from gateway.demo.generation import Generation, generate
from gateway.demo.refusal import ProviderError

DEFAULT_CAP = 16  # tokens; what this endpoint has always allowed when nobody says


def completions(exchange: Exchange) -> Reply:
    """POST /v1/completions."""
    exchange.take_model()
    prompts = prompts_of(exchange.body.get("prompt"))
    choices = exchange.whole("n", 1) * len(prompts)
    cap = cap_of(exchange, "max_tokens")
    generation = generate(exchange, DEFAULT_CAP if cap is None else cap)
    counted = sum(count_input(exchange, prompt) for prompt in prompts)
    usage = exchange.bill(counted, choices * generation.tokens, choices * generation.reasoning)
    if exchange.body.get("stream"):
        exchange.streams = True
        return Reply(content_type=EVENTS, events=_events(exchange, generation, choices, usage), usage=usage)
    return Reply(_plain(exchange, generation, choices, usage), usage=usage)


def prompts_of(prompt: Any, name: str = "prompt") -> list[Any]:
    """The separate inputs of a request: a text, a list of texts, of token ids, or of lists of token ids."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(item, int) for item in prompt):
            return [prompt]
        if all(isinstance(item, str | list) for item in prompt):
            return prompt
    raise ProviderError(400, f"Invalid '{name}': expected a string, an array of strings or of tokens.", param=name)


def count_input(exchange: Exchange, prompt: Any) -> int:
    """Tokens of one input: a list of ids has as many as it is long."""
    return exchange.provider.tokens.text(prompt) if isinstance(prompt, str) else len(prompt)


def _head(exchange: Exchange) -> bytes:
    return b'{"id":"%b","object":"text_completion","created":%d,"model":%b,"system_fingerprint":"fp_demo",' % (
        exchange.make_id("cmpl-").encode(),
        int(time.time()),
        orjson.dumps(exchange.model),
    )


def _finish(generation: Generation) -> bytes:
    return b'"length"' if generation.cut else b'"stop"'


def _choice(text: bytes, index: int, finish: bytes) -> bytes:
    return b'{"text":"%b","index":%d,"logprobs":null,"finish_reason":%b}' % (text, index, finish)


def _plain(exchange: Exchange, generation: Generation, choices: int, usage: bills.Usage) -> bytes:
    text, finish, mode = generation.joined(), _finish(generation), exchange.script.usage
    made = b",".join(_choice(text, index, finish) for index in range(choices))
    member = bills.member(mode, bills.openai_chat(bills.said(mode, usage)))
    return _head(exchange) + b'"choices":[' + made + b"]" + member + b"}"


def _events(exchange: Exchange, generation: Generation, choices: int, usage: bills.Usage) -> Iterator[bytes]:
    options = exchange.body.get("stream_options") or {}
    mode = exchange.script.usage
    included = bool(options.get("include_usage")) and mode != "no"
    head = b"data: " + _head(exchange) + b'"choices":['
    end = b'],"usage":null}\n\n' if included else b"]}\n\n"
    for piece in generation.pieces():
        for index in range(choices):
            yield head + _choice(piece, index, b"null") + end
    for index in range(choices):
        yield head + _choice(b"", index, _finish(generation)) + end
    if included:
        yield head + b"]" + bills.member(mode, bills.openai_chat(bills.said(mode, usage))) + b"}\n\n"
    yield DONE
