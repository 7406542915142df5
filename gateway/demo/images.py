"""Knows OpenAI's images: made, edited and varied; every one is the same grey pixel, priced by size and quality."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson

import gateway.demo.usage as bills
from gateway.demo.exchange import EVENTS, Exchange, Reply, as_json
from gateway.demo.multipart import read_form
from gateway.demo.refusal import ProviderError

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
# Output tokens of one image by quality, for a square and for an oblong one, as gpt-image-1 is priced.
# https://platform.openai.com/docs/guides/image-generation#cost-and-latency
TOKENS = {"low": (272, 400), "medium": (1056, 1568), "high": (4160, 6208)}
TOKENS_PER_INPUT_IMAGE = 323
MOST = 10
DEFAULT_SIZE = "1024x1024"


def generations(exchange: Exchange) -> Reply:
    """POST /v1/images/generations, plain and streamed."""
    body = exchange.body
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise ProviderError(400, "Missing required parameter: 'prompt'.", param="prompt")
    exchange.model = str(body.get("model") or "gpt-image-1")
    return _made(exchange, body, exchange.provider.tokens.text(prompt), 0)


def edits(exchange: Exchange) -> Reply:
    """POST /v1/images/edits and /v1/images/variations, both multipart."""
    request = exchange.request
    form = read_form(request.fields.get(b"content-type", b""), request.body)
    images = form.files("image")
    if not images:
        raise ProviderError(400, "'image' is a required property", param="image")
    names = ("model", "size", "quality", "response_format", "output_format", "background")
    wanted: dict[str, Any] = {name: form.field(name) for name in names if form.field(name)}
    wanted["n"] = _number(form.field("n", "1"))
    wanted["stream"] = form.field("stream") == "true"
    exchange.model = str(wanted.get("model", "gpt-image-1"))
    return _made(exchange, wanted, exchange.provider.tokens.text(form.field("prompt")), len(images))


def _number(text: str) -> int:
    if not text.isdigit():
        raise ProviderError(400, "Invalid value for 'n': expected an integer.", param="n")
    return int(text)


def _made(exchange: Exchange, wanted: dict[str, Any], text_tokens: int, images_in: int) -> Reply:
    n = 1 if wanted.get("n") is None else wanted["n"]
    if not isinstance(n, int) or not 1 <= n <= MOST:
        raise ProviderError(400, f"Invalid value for 'n': expected an integer from 1 to {MOST}.", param="n")
    size, quality = _size(wanted), _quality(wanted)
    width, height = size.split("x")
    tokens = n * TOKENS[quality][0 if width == height else 1]
    image_tokens = images_in * TOKENS_PER_INPUT_IMAGE
    usage = exchange.bill(text_tokens + image_tokens, tokens, images=n, size=size, quality=quality)
    stated = bills.said(exchange.script.usage, usage)
    figures = {
        "input_tokens": stated.input,
        "output_tokens": stated.output,
        "total_tokens": stated.input + stated.output,
        "input_tokens_details": {"text_tokens": max(0, stated.input - image_tokens), "image_tokens": image_tokens},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": stated.output},
    }
    told = {
        "size": size,
        "quality": quality,
        "background": wanted.get("background") or "opaque",
        "output_format": wanted.get("output_format") or "png",
    }
    if wanted.get("stream"):
        exchange.streams = True
        return Reply(content_type=EVENTS, events=_events(told, figures), lead=1, usage=usage)
    return as_json(_answer(exchange, wanted, n, told, figures), usage)


def _answer(
    exchange: Exchange, wanted: dict[str, Any], n: int, told: dict[str, Any], figures: dict[str, Any]
) -> dict[str, Any]:
    linked = wanted.get("response_format") == "url" or (
        exchange.model.startswith("dall-e") and wanted.get("response_format") != "b64_json"
    )
    answer: dict[str, Any] = {"created": int(time.time())}
    if linked:
        address = f"https://images.invalid/{exchange.make_id('img-')}"
        return answer | {"data": [{"url": f"{address}-{index}.png"} for index in range(n)]}
    answer |= {"data": [{"b64_json": PIXEL} for _ in range(n)], **told}
    if exchange.script.usage != "no":
        answer["usage"] = None if exchange.script.usage == "null" else figures
    return answer


def _size(wanted: dict[str, Any]) -> str:
    size = str(wanted.get("size") or DEFAULT_SIZE)
    if size == "auto":
        return DEFAULT_SIZE
    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ProviderError(
            400, f"Invalid value: '{size}'. Supported values are sizes such as '1024x1024'.", param="size"
        )
    return size


def _quality(wanted: dict[str, Any]) -> str:
    quality = str(wanted.get("quality") or "medium")
    return {"hd": "high", "standard": "medium", "auto": "medium"}.get(quality, quality if quality in TOKENS else "high")


def _events(told: dict[str, Any], figures: dict[str, Any]) -> Iterator[bytes]:
    common = {"b64_json": PIXEL, "created_at": int(time.time()), **told}
    yield _event("image_generation.partial_image", {**common, "partial_image_index": 0})
    yield _event("image_generation.completed", {**common, "usage": figures})


def _event(name: str, rest: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps({"type": name, **rest}))
