"""Messages (Anthropic): https://docs.anthropic.com/en/docs/build-with-claude/streaming."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.reshape.events import named, only, pieces_of, text
from gateway.usage import Usage

_TOP = ("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage")
#: Members of a block by its type that come piece by piece: the type of the piece, and its member there.
_GROWING = {
    "text": (("text", "text_delta", "text"),),
    "thinking": (("thinking", "thinking_delta", "thinking"), ("signature", "signature_delta", "signature")),
    "tool_use": (("input", "input_json_delta", "partial_json"),),
}
_BLOCKS = {
    "text": ("type", "text"),
    "thinking": ("type", "thinking", "signature"),
    "redacted_thinking": ("type", "data"),
}
_BLOCKS["tool_use"] = ("type", "id", "name", "input")


def events_of(body: dict[str, Any], usage: bool) -> list[bytes]:
    """The message's head, each block piece by piece, and its end."""
    only(body, _TOP)
    head = {**body, "content": [], "stop_reason": None, "stop_sequence": None}
    head["usage"] = {**body["usage"], "output_tokens": 1}
    found = [named({"type": "message_start", "message": head})]
    for index, block in enumerate(body["content"]):
        found += _block(index, block)
    end = {"stop_reason": text(body["stop_reason"]), "stop_sequence": body.get("stop_sequence")}
    found.append(named({"type": "message_delta", "delta": end, "usage": body["usage"]}))
    return [*found, named({"type": "message_stop"})]


def _block(index: int, block: dict[str, Any]) -> list[bytes]:
    kind = block["type"]
    only(block, _BLOCKS[kind])
    begun, deltas = dict(block), []
    for member, delta, name in _GROWING.get(kind, ()):
        if member not in block:
            continue
        value = block[member]
        begun[member] = {} if member == "input" else ""
        written = orjson.dumps(value).decode() if member == "input" else text(value)
        pieces = [written] if member == "signature" else pieces_of(written)
        deltas += [{"type": delta, name: piece} for piece in pieces if piece]
    return [
        named({"type": "content_block_start", "index": index, "content_block": begun}),
        *[named({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas],
        named({"type": "content_block_stop", "index": index}),
    ]


def whole_of(events: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
    """The message of message_start with its blocks and its end."""
    message: dict[str, Any] | None = None
    blocks: dict[int, dict[str, Any]] = {}
    written: dict[int, str] = {}  # input of tools, as JSON
    for event in events:
        kind = event["type"]
        if kind == "message_start":
            message = dict(only(event["message"], _TOP))
        elif message is None:
            raise ValueError("a stream without a beginning")
        elif kind == "content_block_start":
            block = event["content_block"]
            blocks[event["index"]] = dict(only(block, _BLOCKS[block["type"]]))
        elif kind == "content_block_delta":
            _add(blocks[event["index"]], event["delta"], event["index"], written)
        elif kind == "message_delta":
            message.update(only(event["delta"], ("stop_reason", "stop_sequence")))
            told = {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
            message["usage"] = {**message["usage"], **told}
        elif kind not in ("ping", "content_block_stop", "message_stop"):
            raise ValueError(f"{kind!r} is not known")
    if message is None or message["stop_reason"] is None or events[-1]["type"] != "message_stop":
        raise ValueError("a stream without an end")
    for index, text_of_input in written.items():
        blocks[index]["input"] = orjson.loads(text_of_input or "{}")
    message["content"] = [block for _, block in sorted(blocks.items())]
    return message


def _add(block: dict[str, Any], delta: dict[str, Any], index: int, written: dict[int, str]) -> None:
    for member, kind, name in _GROWING[block["type"]]:
        if delta["type"] != kind:
            continue
        if member == "input":
            written[index] = written.get(index, "") + text(delta[name])
        else:
            block[member] = (block.get(member) or "") + text(delta[name])
        return
    raise ValueError(f"{delta['type']!r} is not known")
