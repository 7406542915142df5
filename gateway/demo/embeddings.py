"""Knows OpenAI's embeddings and moderations: vectors made from the text's digest, and a word list of one word."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

import orjson

import gateway.demo.usage as bills
from gateway.demo.completions import count_input, prompts_of
from gateway.demo.exchange import Exchange, Reply, as_json
from gateway.demo.refusal import ProviderError

DIMENSIONS = 1536
MOST_DIMENSIONS = 8192
FLAGGED_WORD = "violence"
CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def embeddings(exchange: Exchange) -> Reply:
    """POST /v1/embeddings: one vector an input, the same for the same text, nearly at right angles for another."""
    body = exchange.body
    exchange.take_model()
    inputs = prompts_of(body.get("input"), "input")
    dimensions = exchange.whole("dimensions", DIMENSIONS)
    if dimensions > MOST_DIMENSIONS:
        raise ProviderError(400, f"Invalid 'dimensions': at most {MOST_DIMENSIONS}.", param="dimensions")
    usage = exchange.bill(sum(count_input(exchange, item) for item in inputs))
    encoded = body.get("encoding_format") == "base64"
    vectors = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, _rendered(item, dimensions, encoded))
        for index, item in enumerate(inputs)
    )
    mode = exchange.script.usage
    made = b'{"object":"list","data":[%b],"model":%b%b}' % (
        vectors,
        orjson.dumps(exchange.model),
        bills.member(mode, bills.openai_embeddings(bills.said(mode, usage))),
    )
    return Reply(made, usage=usage)


def _rendered(item: Any, dimensions: int, encoded: bool) -> bytes:
    packed = vector(item if isinstance(item, str) else repr(item), dimensions)
    if encoded:
        return b'"' + base64.b64encode(packed) + b'"'
    return orjson.dumps([round(value, 8) for value in struct.unpack(f"<{dimensions}f", packed)])


def vector(text: str, dimensions: int) -> bytes:
    """A vector of length near 1 as little-endian 32-bit floats, made from the SHAKE-256 digest of `text`.

    Each component is plus or minus 1/sqrt(dimensions) times one of 128 steps: the exponent byte is fixed and the
    digest gives sign and mantissa, so that no arithmetic a component is needed.
    """
    digest = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(dimensions * 4)
    words = bytearray(digest)
    words[3::4] = digest[3::4].translate(SIGNED_EXPONENT)
    return bytes(words)


# Keeps a byte's sign bit and sets the rest so that the float is between 1/64 and 1/16.
SIGNED_EXPONENT = bytes((byte & 0x80) | 0x3C | (byte & 0x01) for byte in range(256))


def moderations(exchange: Exchange) -> Reply:
    """POST /v1/moderations: flags the inputs that hold one certain word."""
    source = exchange.body.get("input")
    if source is None:
        raise ProviderError(400, "Missing required parameter: 'input'.", param="input")
    exchange.model = str(exchange.body.get("model") or "omni-moderation-latest")
    inputs = source if isinstance(source, list) and all(isinstance(item, str) for item in source) else [source]
    usage = exchange.bill(sum(exchange.provider.tokens.content(item) for item in inputs))
    results = [_judged(item if isinstance(item, str) else repr(item)) for item in inputs]
    return as_json({"id": exchange.make_id("modr-"), "model": exchange.model, "results": results}, usage)


def _judged(text: str) -> dict[str, Any]:
    flagged = FLAGGED_WORD in text.lower()
    return {
        "flagged": flagged,
        "categories": {name: flagged and name == FLAGGED_WORD for name in CATEGORIES},
        "category_scores": {name: 0.98 if flagged and name == FLAGGED_WORD else 0.0001 for name in CATEGORIES},
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
