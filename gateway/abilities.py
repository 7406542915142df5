"""What a model can do, and what a request asks of it: compared before a call is given to another model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.pricelist import find

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.targets import Target

#: Tokens of a model whose context length nobody states.
ASSUMED_CONTEXT = 4_096
#: Parts of a message that only some models understand; of any other part that is not text nobody knows.
_TEXT = frozenset(("text", "input_text", "output_text", "refusal"))
_SEEN = frozenset(("image_url", "input_image", "image"))
_OF_TOOLS = frozenset(("tool_use", "tool_result", "function_call", "function_call_output"))
_OF_REASONING = frozenset(("thinking", "redacted_thinking", "reasoning"))

#: Members of a body that ask for an ability, if anything is in them.
_ASKING = {
    "tools": "tools",
    "functions": "tools",
    "reasoning": "reasoning",
    "reasoning_effort": "reasoning",
    "thinking": "reasoning",
    "audio": "unknown",
    "modalities": "unknown",
    "context_management": "unknown",
    "mcp_servers": "unknown",
    "logit_bias": "unknown",
}
_SIGNS = frozenset({*_ASKING, "prompt", "text", "output_config", "response_format", "output_format"})
_SPEAKERS = frozenset(("user", "assistant", "system", "developer"))


@dataclass(frozen=True, slots=True)
class Abilities:
    """`context` in tokens, input and output together; None: what the price list says. What is not stated a model has
    not: a call is rather left where it is than given to a model that refuses it."""

    context: int | None = None
    tools: bool = False
    vision: bool = False
    json_schema: bool = False
    reasoning: bool = False


def wanted_of(body: dict[str, Any]) -> frozenset[str]:
    """Names of the abilities that a request's body asks for; "unknown" among them: of something that no model is
    known to have."""
    wanted: set[str] = set()
    if not _SIGNS.isdisjoint(body):
        wanted.update(ability for name, ability in _ASKING.items() if body.get(name))
        if isinstance(body.get("prompt"), dict):  # a stored one; that of completions is plain text
            wanted.add("unknown")
        if _is_json(body):
            wanted.add("json_schema")
    for part in _parts(body):
        if part in _SEEN:
            wanted.add("vision")
        elif part in _OF_TOOLS:
            wanted.add("tools")
        elif part in _OF_REASONING:
            wanted.add("reasoning")
        elif part not in _TEXT:
            wanted.add("unknown")
    return frozenset(wanted)


def _is_json(body: dict[str, Any]) -> bool:
    """Chat, Responses, Messages: each has its own place for it."""
    text, config = body.get("text"), body.get("output_config")
    forms = [
        body.get("response_format"),
        body.get("output_format"),
        text.get("format") if isinstance(text, dict) else None,
        config.get("format") if isinstance(config, dict) else None,
    ]
    return any(isinstance(form, dict) and form.get("type") != "text" for form in forms)


def _parts(body: dict[str, Any]) -> Iterator[str]:
    """The kinds of everything that a conversation is made of."""
    for name in ("messages", "input"):
        items = body.get(name)
        for item in items if isinstance(items, list) else ():
            if not isinstance(item, dict):
                continue
            if len(item) == 2 and type(item.get("content")) is str and item.get("role") in _SPEAKERS:
                continue  # most are
            if item.get("role") is None or item.get("type") not in (None, "message"):
                yield str(item.get("type"))
            if item.get("tool_calls") or item.get("role") in ("tool", "function"):
                yield "tool_use"
            content = item.get("content")
            for part in content if isinstance(content, list) else ():
                yield str(part.get("type")) if isinstance(part, dict) else "text"


def context_of(target: Target) -> int:
    """Tokens that input and output may have together."""
    if target.abilities.context is not None:
        return target.abilities.context
    found = find(target.provider.kind.name, target.provider.name, target.upstream_model)
    return found.context_window if found is not None and found.context_window else ASSUMED_CONTEXT


def fits(call: Call, target: Target, context: int) -> bool:
    """Whether the input at its worst, a token a byte, and the output have room there; counted exactly where a token a
    byte is too much."""
    facts, size = call.facts, len(call.body or b"")
    if target.provider.body_limit and size > target.provider.body_limit:
        return False
    output = target.default_output_tokens if facts.max_tokens is None else facts.max_tokens
    tokens_in = facts.prompt_bytes if facts.input_tokens is None else facts.input_tokens
    if tokens_in + output <= context:
        return True
    if output > context or tokens_in > 16 * context or facts.input_tokens is not None:
        return False  # a word of sixteen bytes is seldom one token: not worth the counting
    facts.input_tokens = target.provider.kind.count_input(call)
    return facts.input_tokens + output <= context
