"""Bodies are checked and changed as bytes: against a slow and exact reading by the standard library."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway import jsonbody
from gateway.errors import BadRequest
from gateway.jsonbody import MAX_DEPTH, insert, parse, splice

#: A busy machine is no failure.
CALM = settings(deadline=None, max_examples=200)

# A JSON text is drawn as a tree that keeps what a value forgets: duplicate members, spelling, white space.
SPACE = st.sampled_from(["", "", "", " ", "\n", "\t", "\r\n ", "  "])
LETTERS = st.sampled_from([*list('ab"\\:{}[],u0 '), "\n", "é", "\u2028", "😀", "model"])
WORDS = st.lists(LETTERS, max_size=6).map("".join)
KEYS = st.sampled_from(["a", "b", "model", "mo", '"', "\\", ":", "{", "model\\"]) | WORDS


@st.composite
def strings(draw: st.DrawFn, words: st.SearchStrategy[str] = WORDS) -> str:
    """A string literal, each of its characters spelt in one of the ways there are."""
    spelt = []
    for character in draw(words):
        ways = [json.dumps(character)[1:-1], json.dumps(character, ensure_ascii=False)[1:-1]]
        if ord(character) < 0x10000:
            ways += [f"\\u{ord(character):04x}", f"\\u{ord(character):04X}"]
        spelt.append(draw(st.sampled_from(ways)))
    return '"' + "".join(spelt) + '"'


SCALARS = st.one_of(
    strings(), st.sampled_from(["0", "-1", "1.5e3", "12345678901234567890123", "true", "false", "null"])
)


def _array(items: list[str], space: str) -> str:
    return "[" + space + f"{space},".join(items) + space + "]"


def _object(members: list[tuple[str, str]], space: str) -> str:
    return "{" + space + f",{space}".join(f"{key}{space}:{value}{space}" for key, value in members) + "}"


def _deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds(_array, st.lists(inner, max_size=4), SPACE),
        st.builds(_object, st.lists(st.tuples(strings(KEYS), inner), max_size=4), SPACE),
    )


TEXTS = st.recursive(SCALARS, _deeper, max_leaves=20)


def has_duplicate(text: str) -> bool:
    found = False

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found = found or len({key for key, _ in pairs}) < len(pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=check)
    return found


@CALM
@given(TEXTS)
@example('{"a" :1,"a":2}')
@example('{"a":"\\u0022","b":{"a":1},"b":"\\u0022"}')
@example('{"b":"\\u0022\\u0022","a":1,"a":2}')
@example('{"a\\\\":1,"a\\\\\\\\":2}')
@example('{"\\u0022":1,"a":"\\u0022\\u0022\\u0022","a":""}')
def test_duplicate_keys_are_refused_and_nothing_else_is(text: str) -> None:
    raw = text.encode()
    if has_duplicate(text):
        with pytest.raises(BadRequest, match="stands twice"):
            parse(raw)
    else:
        assert parse(raw) == orjson.loads(raw)


@CALM
@given(TEXTS, st.integers(1, 9))
def test_windows_do_not_change_the_count_of_members(text: str, window: int) -> None:
    raw = text.encode()
    whole = jsonbody._count_members(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonbody, "WINDOW_BYTES", window)
        assert jsonbody._count_members(raw) == whole


@CALM
@given(
    st.lists(st.sampled_from(['{"a":', "[", "[1,", '{"[":"{",\n"b":']), min_size=1, max_size=80), SPACE, st.booleans()
)
@example(["["] * 64, "", False)
@example(["["] * 65, "", False)
@example(['{"a":', "["] * 32, "", True)
@example(["[", '{"a":'] * 32 + ["["], "", True)
def test_depth_is_exact(openings: list[str], space: str, is_long: bool) -> None:
    closings = ["]" if opening[0] == "[" else "}" for opening in reversed(openings)]
    text = "".join(openings) + '"' + ("[" * 5000 if is_long else "[{") + '"' + space + "".join(closings)
    if len(openings) > MAX_DEPTH:
        with pytest.raises(BadRequest, match="deeper than 64"):
            parse(text.encode())
    else:
        assert parse(text.encode()) == json.loads(text)


def test_a_container_behind_many_scalars_is_still_followed() -> None:
    deep = b"[" * 70 + b"]" * 70
    with pytest.raises(BadRequest, match="deeper"):
        parse(b"[" + b"1," * 3000 + deep + b"]")


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "The body is empty"),
        (b" \n", "The body is empty"),
        (b"{", "line 1 column 2"),
        (b'{"a":1,}', "line 1 column 7"),
        (b'{"a":\n  nope}', "line 2 column 3"),
        (b'{"a":NaN}', "NaN is not JSON: line 1, column 6"),
        (b"[1,-Infinity]", "Infinity is not JSON"),
        (b'{"a":"\xff"}', "not valid UTF-8 at byte 6"),
        (b'\xef\xbb\xbf{"a":1}', "not valid JSON"),
        (b'{"a":"\xed\xa0\x80"}', "not valid UTF-8 at byte 6"),
        (b'{"a":"\\ud800"}', "not valid JSON"),
        (b'{"a":"\x00"}', "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b'{"a":01}', "not valid JSON"),
        (b'{"a":1}{"a":1}', "not valid JSON"),
        (b'{"x":{"model":"a","model":"b"}}', 'the key "model" stands twice'),
        (b'{"model":"a","mo\\u0064el":"b"}', 'the key "model" stands twice'),
        (b"[" * 3000 + b"]" * 3000, "not valid JSON"),
    ],
)
def test_what_is_wrong_is_said(raw: bytes, what: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(raw)
    assert what in refused.value.message


def test_a_million_containers_are_refused_before_they_are_made() -> None:
    with pytest.raises(BadRequest, match="262,144 arrays"):
        parse(b"[" + b"[]," * 600_000 + b"1]")


def test_a_long_body_with_a_duplicate_is_refused_without_a_name() -> None:
    with pytest.raises(BadRequest, match="a key stands twice"):
        parse(b'{"a":"' + b"x" * 1_100_000 + b'","b":1,"b":2}')


@CALM
@given(st.binary(max_size=60))
def test_garbage_is_refused_or_read(raw: bytes) -> None:
    try:
        value = parse(raw)
    except BadRequest:
        return
    assert value == orjson.loads(raw)


@st.composite
def objects_with_a_member(draw: st.DrawFn) -> tuple[str, str, str]:
    """What stands before the value of the member `model`, the value, and what follows; no duplicates."""
    others = draw(st.lists(st.tuples(strings(KEYS), TEXTS), max_size=4, unique_by=lambda pair: json.loads(pair[0])))
    others = [(key, value) for key, value in others if json.loads(key) != "model"]
    at = draw(st.integers(0, len(others)))
    key, value = draw(strings(st.just("model"))), draw(TEXTS)
    space = draw(SPACE)
    before = [f"{name}{space}:{space}{other}{space}," for name, other in others[:at]]
    after = [f"{space},{name}:{other}" for name, other in others[at:]]
    head = space + "{" + space + "".join(before) + space + key + space + ":" + space
    return head, value, space + "".join(after) + space + "}" + space


@CALM
@given(objects_with_a_member())
def test_splice_changes_the_value_and_no_other_byte(parts: tuple[str, str, str]) -> None:
    before, value, after = parts
    changed = splice((before + value + after).encode(), "model", b'"other"')
    assert changed == (before + '"other"' + after).encode()


@CALM
@given(st.lists(st.tuples(strings(KEYS), TEXTS), max_size=4), SPACE)
def test_an_absent_member_becomes_the_first(members: list[tuple[str, str]], space: str) -> None:
    raw = (space + _object([pair for pair in members if json.loads(pair[0]) != "model"], space)).encode()
    changed = splice(raw, "model", b'{"x":1}')
    cut = raw.index(b"{") + 1
    assert changed.startswith(raw[:cut] + b'"model":{"x":1}')
    assert changed.endswith(raw[cut:])
    assert orjson.loads(changed) == {**orjson.loads(raw), "model": {"x": 1}}
    assert insert(raw, "model", b'{"x":1}') == changed


def test_numbers_that_python_can_not_hold_stay_as_they_were() -> None:
    raw = b'{"seed": 123456789012345678901234567890, "t":1.0e-5,"model":"a"}'
    assert splice(raw, "model", b'"b"') == raw.replace(b'"a"', b'"b"')


def test_a_member_among_too_many_is_refused() -> None:
    raw = b"{" + b",".join(b'"k%d":1' % index for index in range(5000)) + b',"model":1}'
    with pytest.raises(BadRequest, match="5,001 members"):
        splice(raw, "model", b"2")
