"""Splitting and merging lose nothing: not a token, not a pico-dollar, not an item."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.merging import inputs_of, share_usage, shares, split
from gateway.usage import Usage

weights = st.lists(st.integers(0, 10**6), min_size=1, max_size=40)
count = st.integers(0, 10**9)


@given(st.integers(0, 1 << 60), weights)
def test_shares_add_up_and_are_fair(total: int, weights: list[int]) -> None:
    made, whole = shares(total, weights), sum(weights)
    assert sum(made) == total
    for share, weight in zip(made, weights, strict=True):
        exact = total * weight if whole else total
        assert abs(share * (whole or len(weights)) - exact) < (whole or len(weights))
    if whole:
        assert not any(share for share, weight in zip(made, weights, strict=True) if not weight)


@given(weights, *[count] * 8, st.dictionaries(st.sampled_from(["requests", "inputs"]), count), st.booleans())
def test_shares_of_a_usage_add_up(
    weights: list[int], plain: int, cached: int, write: int, hour: int, audio: int, out: int, thought: int, said: int,
    units: dict[str, int], estimated: bool,
) -> None:  # fmt: skip
    total_in, total_out = plain + cached + write + hour + audio, out + thought + said
    usage = Usage(total_in, cached, write, hour, audio, total_out, thought, said, units, estimated)
    made = share_usage(usage, weights)
    for field in fields(Usage):
        if field.name not in ("units", "estimated"):
            assert sum(getattr(one, field.name) for one in made) == getattr(usage, field.name)
    for unit, amount in units.items():
        assert sum(one.units.get(unit, 0) for one in made) == amount
    for one in made:
        parts = one.cached_tokens + one.cache_write_tokens + one.cache_write_1h_tokens + one.audio_input_tokens
        assert parts <= one.input_tokens
        assert one.reasoning_tokens + one.audio_output_tokens <= one.output_tokens
        assert one.estimated == estimated


numbers = st.floats(-1, 1, allow_nan=False)


@given(
    st.lists(st.lists(st.lists(numbers, min_size=1, max_size=3), min_size=1, max_size=4), min_size=1, max_size=8),
    st.integers(0, 10**6),
    st.randoms(),
)
def test_everyone_gets_their_own_items_and_the_usage_adds_up(
    members: list[list[list[float]]], tokens: int, random: Any
) -> None:
    every = [vector for member in members for vector in member]
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(every)]
    random.shuffle(data)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "details": {"cached_tokens": tokens // 2}}
    body = orjson.dumps({"object": "list", "data": data, "model": "m", "usage": usage})
    counts = [len(member) for member in members]
    made = [orjson.loads(one) for one in split("embeddings", body, counts, counts)]
    assert [[item["embedding"] for item in one["data"]] for one in made] == members
    assert [[item["index"] for item in one["data"]] for one in made] == [list(range(n)) for n in counts]
    assert sum(one["usage"]["prompt_tokens"] for one in made) == tokens
    assert sum(one["usage"]["details"]["cached_tokens"] for one in made) == tokens // 2
    assert all(one["usage"]["prompt_tokens"] == one["usage"]["total_tokens"] for one in made)


def test_numbers_come_back_digit_for_digit() -> None:
    body = b'{"data":[{"index":0,"embedding":[0.10000000000000000001,1e-7,-0.0]},{"index":1,"embedding":"AAA="}]}'
    first, second = split("embeddings", body, [1, 1], [1, 1])
    assert b"[0.10000000000000000001,1e-7,-0.0]" in first
    assert b'"AAA="' in second


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b"not json",
        b'{"data":[]}',
        b'{"data":[{"index":0},{"index":0}]}',
        b'{"data":[{"index":0},{"index":2}]}',
        b'{"data":[{"index":0}]}',
        b'{"data":[{},{}]}',
        b'{"data":[{"index":0},{"index":1},{"index":2}]}',
    ],
)
def test_an_answer_without_one_item_for_each_input_is_none(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"an answer without|items for"):
        split("embeddings", body, [1, 1], [1, 1])


def test_what_may_be_joined() -> None:
    assert inputs_of("embeddings", {"input": "a"}) == ("text", ["a"])
    assert inputs_of("embeddings", {"input": ["a", "b"]}) == ("text", ["a", "b"])
    assert inputs_of("embeddings", {"input": [1, 2]}) == ("tokens", [[1, 2]])
    assert inputs_of("embeddings", {"input": [[1], [2]]}) == ("tokens", [[1], [2]])
    for odd in ({}, {"input": []}, {"input": ["a", 1]}, {"input": [[1], "a"]}, {"input": [True]}, {"input": 1}):
        assert inputs_of("embeddings", odd) is None
    assert inputs_of("moderations", {"input": [{"type": "text", "text": "a"}]}) is None
