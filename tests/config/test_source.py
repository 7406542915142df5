"""The place of every key and value in a TOML text."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.source import Source

TEXT = '''\
# a comment with [brackets] and "quotes"
top = 1  # [not.a.table]
dotted.key."with space" = """
multi ] } line""" # comment
"quoted.key" = [ 1, [2, 3], { a = "x,y", b.c = 'z' } ]
date = 1979-05-27 07:32:00 # a date may hold a space
empty = ""
four = """"quoted""""
[table]
listed = [
  "one",  # first
  # nothing
  "two",
]
[table.'sub table']
x = { y = { z = [ ] } }
[[list]]
a = 1
[list.inner]
b = 2
[[list]]
a = 3
[[list.deep]]
c = 4
[ spaced . out ]
d = 5
'''


def test_every_part_of_a_text_is_found():
    source = Source(TEXT, "t")
    source.parse()
    places = {
        ("top",): (2, "1"),
        ("dotted", "key", "with space"): (3, '"""\nmulti ] } line"""'),
        ("quoted.key",): (5, "[ 1, [2, 3], { a = \"x,y\", b.c = 'z' } ]"),
        ("quoted.key", 1, 0): (5, "2"),
        ("quoted.key", 2, "a"): (5, '"x,y"'),
        ("quoted.key", 2, "b", "c"): (5, "'z'"),
        ("date",): (6, "1979-05-27 07:32:00"),
        ("empty",): (7, '""'),
        ("four",): (8, '""""quoted""""'),
        ("table", "listed", 1): (13, '"two"'),
        ("table", "sub table", "x", "y", "z"): (16, "[ ]"),
        ("list", 0, "a"): (18, "1"),
        ("list", 0, "inner", "b"): (20, "2"),
        ("list", 1, "a"): (22, "3"),
        ("list", 1, "deep", 0, "c"): (24, "4"),
        ("spaced", "out", "d"): (26, "5"),
    }
    for path, (line, value) in places.items():
        mark = source.marks[path]
        assert source.line_of(path) == line, path
        assert TEXT[mark.value : mark.value_end] == value, path
    assert source.line_of(("table", "missing")) == 9
    assert source.line_of(("missing",)) == 0


_keys = st.text(st.sampled_from("ab-_. \"'é#]="), min_size=1, max_size=4)
_scalars = (
    st.integers(-(10**6), 10**6)
    | st.booleans()
    | st.text(st.sampled_from("ab \"'\\#,]}[{=\nü"), max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False, width=16)
)
_values: st.SearchStrategy[Any] = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3), max_leaves=8
)


def _key(key: str, draw: Any) -> str:
    bare = key.isascii() and all(c.isalnum() or c in "-_" for c in key)
    if bare and draw(st.booleans()):
        return key
    if "'" not in key and draw(st.booleans()):
        return f"'{key}'"
    return '"' + key.replace('"', '\\"') + '"'


def _inline(value: Any, draw: Any) -> str:
    space = draw(st.sampled_from(["", " ", "  "]))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if "'" not in value and "\n" not in value and draw(st.booleans()):
            return f"'{value}'"
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        if draw(st.booleans()):
            return '"""' + escaped + '"""'
        return '"' + escaped.replace("\n", "\\n") + '"'
    if isinstance(value, list):
        comma = draw(st.sampled_from([",", " ,", ", # note ]\n"]))
        return "[" + space + comma.join(_inline(one, draw) for one in value) + draw(st.sampled_from(["", "\n"])) + "]"
    if isinstance(value, dict):
        pairs = (f"{space}{_key(key, draw)}{space}= {_inline(one, draw)}" for key, one in value.items())
        return "{" + ",".join(pairs) + space + "}"
    return repr(value)


@st.composite
def _documents(draw: Any) -> str:
    lines = []
    tables = draw(st.dictionaries(_keys, st.dictionaries(_keys, _values, max_size=3), max_size=3))
    for name, value in draw(st.dictionaries(_keys, _values, max_size=3)).items():
        if name not in tables:
            lines.append(f"{_key(name, draw)} = {_inline(value, draw)} # end")
    for name, table in tables.items():
        opening, closing = draw(st.sampled_from([("[", "]"), ("[[", "]]")]))
        for _ in range(1 if opening == "[" else draw(st.integers(1, 2))):
            lines.append(f"{opening}{_key(name, draw)}{closing}")
            lines += [f"{_key(key, draw)}={_inline(value, draw)}" for key, value in table.items()]
    return "\n".join(lines)


@settings(max_examples=300, deadline=None)
@given(_documents())
def test_every_value_of_any_document_is_found_where_it_stands(text):
    source = Source(text, "t")
    data = source.parse()
    _compare(data, (), source)


def _compare(value: Any, path: tuple[str | int, ...], source: Source) -> None:
    """What stands at each mark, parsed by itself, is the value that the whole document has there."""
    mark = source.marks.get(path)
    if path:
        assert mark is not None, path
    if mark is not None and not source.text.startswith("[", mark.key):
        written = source.text[mark.value : mark.value_end]
        assert (
            tomllib.loads(f"v = {written}", parse_float=type(value) if isinstance(value, float) else _exact)["v"]
            == value
        ), path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        _compare(one, (*path, key), source)


def _exact(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)
