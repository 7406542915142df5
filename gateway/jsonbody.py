"""A JSON body's bytes: what is accepted, and how one member changes while every other byte stays.

Accepted is strict JSON (RFC 8259) in UTF-8, without duplicate keys at any level, at most 64 levels deep: whoever reads
the forwarded bytes after us, with whatever parser, sees what we decided on (TERMS 15).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

import msgspec
import orjson

from gateway.errors import BadRequest

#: Arrays and objects inside one another.
MAX_DEPTH = 64

#: Arrays and objects in all: a million small ones cost a second of everybody's time.
MAX_CONTAINERS = 262_144

#: Members of the outermost object, where one of them has to be found.
MAX_MEMBERS = 4_096

#: Bodies longer than this are not searched for the name of a duplicate key: the error says only that there is one.
NAMED_BYTES = 1_048_576

#: Text is cut at its quotes window by window, so that a body of nothing but quotes can't make millions of pieces.
WINDOW_BYTES = 65_536

_SHORT_BYTES = 4_096
_NESTED = frozenset({dict, list})
#: Seventeen digits, with or without a point: the most that a float keeps is fifteen to seventeen.
_LONG_RUN = b"0" * 17
_DIGITS_ALIKE = bytes.maketrans(b"123456789.", b"0" * 10)
_NOT_OPENING = bytes(range(256)).translate(None, b"{[")
_SPACE = re.compile(rb"[ \t\n\r]*+")
_KEY = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse(raw: bytes) -> Any:
    """The value of a JSON text. Raises BadRequest, saying what is wrong and where.

    What is forwarded is `raw`, so of the value only the fields that we know ourselves matter: integers over 64 bits
    become floats here and stay integers there (see `is_exact`).
    """
    if len(raw) > NAMED_BYTES and len(raw.translate(None, _NOT_OPENING)) > MAX_CONTAINERS:
        raise BadRequest(f"The body is not acceptable JSON: more than {MAX_CONTAINERS:,} arrays and objects.")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        _refuse_malformed(raw, error)
    if type(value) is not dict and type(value) is not list:
        return value
    if _is_deep(raw, value):
        raise BadRequest(f"The body is not acceptable JSON: it is nested deeper than {MAX_DEPTH} levels.")
    written = orjson.dumps(value)
    if written != raw and _may_repeat(raw, written) and _count_members(raw) != _count_members(written):
        _refuse_duplicate(raw)
    return value


def is_exact(raw: bytes) -> bool:
    """Whether the value of a JSON text surely has every digit of its numbers: none is so long that a float could lack
    some. Digits in strings count, too, so this is a quick look (1 us a KB) that may say False in vain."""
    return _LONG_RUN not in raw.translate(_DIGITS_ALIKE)


def insert(raw: bytes, key: str, value: bytes) -> bytes:
    """`raw`, a JSON object without a member `key`, with it as its first: `value` is JSON, `key` an identifier."""
    opening = raw.index(b"{") + 1
    is_empty = raw[_skip_space(raw, opening)] == 0x7D
    return b"".join((raw[:opening], b'"', key.encode(), b'":', value, b"" if is_empty else b",", raw[opening:]))


def splice(raw: bytes, key: str, value: bytes) -> bytes:
    """`raw`, a JSON object that `parse` accepted, with `value` (JSON) as its member `key` (an identifier).

    An existing member keeps its place, however its key is spelt; every other byte stays as it was.
    """
    members = _MEMBERS.decode(raw)
    if key not in members:
        return insert(raw, key, value)
    if len(members) > MAX_MEMBERS:
        raise BadRequest(f"The body has {len(members):,} members; {MAX_MEMBERS:,} are the most that can be read.")
    position = raw.index(b"{")
    for name, found in members.items():  # in the order of the text: each value's length tells where the next key is
        key_end = _match(_KEY, raw, _skip_space(raw, position + 1)).end()
        begin = _skip_space(raw, _skip_space(raw, key_end) + 1)
        end = begin + memoryview(found).nbytes
        if name == key:
            return b"".join((raw[:begin], value, raw[end:]))
        position = _skip_space(raw, end)
    raise AssertionError("the decoder named a key that the text does not have")


def _is_deep(raw: bytes, value: Any) -> bool:
    """A short body with few brackets can't be deep; otherwise the containers are followed down level by level."""
    if len(raw) <= _SHORT_BYTES and len(raw.translate(None, _NOT_OPENING)) <= MAX_DEPTH:
        return False
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        add = below.append
        for container in level:
            values = container.values() if type(container) is dict else container
            if is_flat(values):
                continue
            for inner in values:
                if type(inner) is dict or type(inner) is list:
                    add(inner)
        if not below:
            return False
        level = below
    return True


def is_flat(values: Iterable[Any]) -> bool:
    """Whether no array or object is among the values."""
    return _NESTED.isdisjoint(map(type, values))


def _may_repeat(raw: bytes, written: bytes) -> bool:
    """False if `raw` certainly has no duplicate key. `written` is its value, written again.

    A duplicate takes at least the two quotes of its key away. Quotes inside strings are in both texts alike, unless
    `raw` spells one by its number.
    """
    return raw.count(b'"') != written.count(b'"') or b"u0022" in raw


def _count_members(text: bytes) -> int:
    """How many members all objects of a valid JSON text have: one for each colon outside a string."""
    if b"\\" in text:  # a run of backslashes begins with an escape, so pairs are taken from its start
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    found, inside = 0, 0
    for start in range(0, len(text), WINDOW_BYTES):
        pieces = text[start : start + WINDOW_BYTES].split(b'"')
        found += b"".join(pieces[inside::2]).count(b":")
        inside ^= (len(pieces) - 1) & 1
    return found


def _skip_space(raw: bytes, position: int) -> int:
    return _match(_SPACE, raw, position).end()


def _match(pattern: re.Pattern[bytes], raw: bytes, position: int) -> re.Match[bytes]:
    found = pattern.match(raw, position)
    if found is None:
        raise ValueError("not a JSON object")
    return found


def _refuse_malformed(raw: bytes, error: orjson.JSONDecodeError) -> NoReturn:
    if not raw.strip():
        raise BadRequest("The body is empty; this route takes JSON.") from None
    try:
        text = raw.decode()
    except UnicodeDecodeError as bad:
        raise BadRequest(f"The body is not valid UTF-8 at byte {bad.start}; JSON must be.") from None
    word = re.match(r"-?(?:NaN|Infinity)\b", text[error.pos : error.pos + 9])
    if word is not None:
        what = f"{word[0]} is not JSON: line {error.lineno}, column {error.colno}"
    else:
        what = str(error).partition(" (char")[0]
    raise BadRequest(f"The body is not valid JSON: {what}.") from None


def _refuse_duplicate(raw: bytes) -> NoReturn:
    found = "" if len(raw) > NAMED_BYTES else _first_duplicate(raw)
    what = f"the key {found} stands twice in one object" if found else "a key stands twice in one object"
    raise BadRequest(f"The body is not acceptable JSON: {what}, and parsers disagree on which one counts.")


def _first_duplicate(raw: bytes) -> str:
    repeated: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                repeated.append(name)
            seen.add(name)

    json.loads(raw, object_pairs_hook=check)
    return json.dumps(repeated[0][:80], ensure_ascii=False) if repeated else ""
