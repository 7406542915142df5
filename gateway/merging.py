"""Several requests as one, its answer as several: inputs joined, items handed back, usage and cost shared exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.usage import Usage

#: Where the answer has its items, one an input, by route.
ITEMS = {"embeddings": "data", "moderations": "results"}

_top = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_index = msgspec.json.Decoder(int).decode
_any = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode

#: What is counted within `input_tokens`, and within `output_tokens`.
_PARTS = {
    "input_tokens": ("cached_tokens", "cache_write_tokens", "cache_write_1h_tokens", "audio_input_tokens"),
    "output_tokens": ("reasoning_tokens", "audio_output_tokens"),
}


def inputs_of(route: str, body: dict[str, Any]) -> tuple[str, list[Any]] | None:
    """Of what sort a body's inputs are ("text" or "tokens"), and each of them; None: not to be joined with others'."""
    value = body.get("input")
    if isinstance(value, str):
        return "text", [value]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(one, str) for one in value):
        return "text", value
    if route != "embeddings":
        return None  # a list of parts may be one input
    if _is_tokens(value):
        return "tokens", [value]
    return ("tokens", value) if all(map(_is_tokens, value)) else None


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """A total shared out by weight in whole units, largest remainders first: the shares add up to it exactly. Where
    nobody has a weight all weigh the same."""
    whole = sum(weights)
    if whole <= 0:
        weights, whole = [1] * len(weights), len(weights)
    parts = [divmod(total * weight, whole) for weight in weights]
    shared = [quotient for quotient, _ in parts]
    for index in sorted(range(len(parts)), key=lambda one: (-parts[one][1], one))[: total - sum(shared)]:
        shared[index] += 1
    return shared


def share_usage(usage: Usage, weights: Sequence[int]) -> list[Usage]:
    """Each one's usage; every count adds up, and no part is more than its whole."""
    shared = [Usage(estimated=usage.estimated) for _ in weights]
    for whole, parts in _PARTS.items():
        rest = getattr(usage, whole)
        for part in parts:
            amount = min(getattr(usage, part), rest)
            rest -= amount
            for one, share in zip(shared, shares(amount, weights), strict=True):
                setattr(one, part, share)
                setattr(one, whole, getattr(one, whole) + share)
        for one, share in zip(shared, shares(rest, weights), strict=True):
            setattr(one, whole, getattr(one, whole) + share)
    for unit, amount in usage.units.items():
        for one, share in zip(shared, shares(amount, weights), strict=True):
            if share:
                one.units[unit] = share
    return shared


def split(route: str, body: bytes, counts: Sequence[int], weights: Sequence[int]) -> list[bytes]:
    """An answer as each of several calls would have got it: its own items, numbered from 0, and its share of the usage;
    all else as it came, numbers digit for digit. Raises ValueError where there is not one item for each input."""
    try:
        top = _top(body)
        name = ITEMS[route]
        items = _in_order(_items(top[name])) if route == "embeddings" else _items(top[name])
        usage = _shared(_any(top["usage"]), weights) if "usage" in top else None
    except (KeyError, msgspec.MsgspecError) as error:
        raise ValueError(f"an answer without {ITEMS[route]}: {error}") from None
    if len(items) != sum(counts):
        raise ValueError(f"{len(items)} items for {sum(counts)} inputs")
    bodies, at = [], 0
    for number, count in enumerate(counts):
        own = items[at : at + count]
        at += count
        if route == "embeddings":
            own = [{**item, "index": msgspec.Raw(b"%d" % index)} for index, item in enumerate(own)]
        made: dict[str, Any] = {**top, name: own}
        if usage is not None:
            made["usage"] = usage[number]
        bodies.append(_write(made))
    return bodies


def _in_order(items: list[dict[str, msgspec.Raw]]) -> list[dict[str, msgspec.Raw]]:
    """By their index, whatever order they came in."""
    placed = {_index(item["index"]): item for item in items}
    if sorted(placed) != list(range(len(items))):
        raise msgspec.ValidationError("their indexes are not 0, 1, 2, ...")
    return [placed[index] for index in range(len(items))]


def _shared(value: Any, weights: Sequence[int]) -> list[Any]:
    """Whole numbers are shared out, also further inside; all else is everybody's."""
    if isinstance(value, dict):
        inside = {key: _shared(one, weights) for key, one in value.items()}
        return [{key: each[number] for key, each in inside.items()} for number in range(len(weights))]
    if type(value) is int and value >= 0:
        return list(shares(value, weights))
    return [value] * len(weights)
