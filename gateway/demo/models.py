"""Knows the lists of models, in OpenAI's shape and in Anthropic's. Any name is answered, listed or not."""

from __future__ import annotations

from typing import Any

from gateway.demo.exchange import Exchange, Reply, as_json

MADE = 1_767_225_600  # 2026-01-01, in seconds
MADE_DAY = "2026-01-01T00:00:00Z"
CONTEXT = 200_000
MOST_OUTPUT = 64_000


def models(exchange: Exchange) -> Reply:
    """GET /v1/models."""
    names = exchange.provider.settings.models
    if not exchange.anthropic:
        return as_json({"object": "list", "data": [_openai(name) for name in names]})
    data = [_anthropic(name) for name in names]
    first, last = (names[0], names[-1]) if names else (None, None)
    return as_json({"data": data, "has_more": False, "first_id": first, "last_id": last})


def one_model(exchange: Exchange, name: str, rest: str) -> Reply:
    """GET /v1/models/{id}."""
    return as_json(_anthropic(name) if exchange.anthropic else _openai(name))


def _openai(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": MADE, "owned_by": "tidegate-demo"}


def _anthropic(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": MADE_DAY,
        "lifecycle": "active",
        "max_input_tokens": CONTEXT,
        "max_tokens": MOST_OUTPUT,
    }
