"""What the ids of stored provider objects look like, and where a request may name them besides the keys we know."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

#: How ids of objects begin that a later request can name; a `-` or `_` and something random follow.
_BEGINS = (
    b"asst|batch|cfile|chatcmpl|cntr|container|conv|evalrun|eval|file|ftckpt|ftjob|msgbatch|resp|run|skill|thread|"
    b"upload|video|vsfb|vs"
)
_UUID = rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-"
_REST = rb"[A-Za-z0-9_.-]"

#: A whole string of a JSON text, not a key, that may be such an id. The first look is what most bodies cost.
_FIRST = re.compile(rb'"(?=[abcefrmstuv])(?:' + _BEGINS + rb")[-_]")
_STRING = re.compile(rb'"((?:' + _BEGINS + rb")[-_](" + _REST + rb'{1,500}))"(?!\s*:)')
_STRING_OR_UUID = re.compile(rb'"((?:(?:' + _BEGINS + rb")[-_]|" + _UUID + rb")(" + _REST + rb'{1,500}))"(?!\s*:)')

#: In forms and queries it may stand anywhere.
_ANYWHERE = re.compile(rb"(?<![A-Za-z0-9])((?:(?:" + _BEGINS + rb")[-_]|" + _UUID + rb")(" + _REST + rb"{1,500}))")

#: ASCII characters of a JSON string that are spelt by their number.
_ESCAPED = re.compile(rb"\\u00([2-7][0-9a-fA-F])")

_RANDOM = re.compile(r"(?=.*[0-9])(?:[A-Za-z]+[A-Za-z_.]*[-_][A-Za-z0-9_-]{6,}|[A-Za-z0-9_-]{16,})")
_WORD = re.compile(rb"[a-z]{1,8}(?:[-_.][a-z]+)*")  # search, batches, file_citation: not random


def looks_like_id(name: str) -> bool:
    """Whether a part of a path, or the `id` of a row, was made by a provider rather than chosen as a word or name."""
    return bool(_RANDOM.fullmatch(name)) or name in in_text(name.encode())


def in_json(body: bytes, *, uuids: bool) -> list[str]:
    """Whole strings of a JSON text that may be ids, under whatever key. UUIDs, which many use as names of their own
    users and sessions, only where asked for."""
    if b"\\u00" in body:
        body = _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)), body)
    if uuids:
        return _ids(_STRING_OR_UUID, body)
    return _ids(_STRING, body) if _FIRST.search(body) is not None else []


def in_text(text: bytes) -> list[str]:
    """What may be an id anywhere in the value of a form's field."""
    return _ids(_ANYWHERE, text)


def in_query(query: bytes) -> list[str]:
    """What may be an id in a query string."""
    return in_text(unquote_plus(query.decode("latin-1")).encode())


def _ids(pattern: re.Pattern[bytes], text: bytes) -> list[str]:
    return [id.decode() for id, rest in pattern.findall(text) if _WORD.fullmatch(rest) is None]
