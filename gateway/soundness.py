"""Whether a success is what its route answers with: only that is given again. Details are not looked at."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import orjson

_NULL = msgspec.Raw(b"null")


class _Choice(msgspec.Struct):
    message: msgspec.Raw = _NULL
    text: msgspec.Raw = _NULL


class _Choices(msgspec.Struct):
    choices: list[_Choice]


class _Vector(msgspec.Struct):
    embedding: msgspec.Raw = _NULL


class _Vectors(msgspec.Struct):
    data: list[_Vector]


class _Results(msgspec.Struct):
    results: list[msgspec.Raw]


class _Response(msgspec.Struct):
    output: list[msgspec.Raw]
    status: str = "completed"


class _Message(msgspec.Struct):
    content: list[msgspec.Raw]
    type: str = "message"


class _Count(msgspec.Struct):
    input_tokens: int


def _is_null(value: msgspec.Raw) -> bool:
    return bytes(value) == b"null"


#: By route: how its answer is read, and what has to be true of it. The rest of it is skipped, not built.
_WHOLE: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "chat": (_Choices, lambda it: bool(it.choices) and not any(_is_null(one.message) for one in it.choices)),
    "completions": (_Choices, lambda it: bool(it.choices) and not any(_is_null(one.text) for one in it.choices)),
    "embeddings": (_Vectors, lambda it: bool(it.data) and not any(_is_null(one.embedding) for one in it.data)),
    "moderations": (_Results, lambda it: bool(it.results)),
    "responses": (_Response, lambda it: it.status in ("completed", "incomplete")),
    "messages": (_Message, lambda it: it.type == "message"),
    "count_tokens": (_Count, lambda it: True),
}
_READ = {route: (msgspec.json.Decoder(shape).decode, holds) for route, (shape, holds) in _WHOLE.items()}

#: By route: what a stream says when the model has come to its end. (In a text the quotes would be escaped.)
_ENDED = {
    "chat": re.compile(rb'"finish_reason"\s*:\s*"'),
    "completions": re.compile(rb'"finish_reason"\s*:\s*"'),
    "responses": re.compile(rb'"type"\s*:\s*"response\.(?:completed|incomplete)"'),
    "messages": re.compile(rb'"stop_reason"\s*:\s*"'),
}


def is_answer(route: str, body: bytes) -> bool:
    """Of a whole body."""
    decode, holds = _READ[route]
    try:
        return holds(decode(body))
    except msgspec.MsgspecError:
        return False


def is_whole_stream(route: str, stream: bytes) -> bool:
    """Whether the model came to an end, and every event says JSON, but for OpenAI's end mark: what a client could not
    read is not given again."""
    ended = _ENDED.get(route)
    if ended is None or ended.search(stream) is None:
        return False
    for line in stream.split(b"\n"):
        data = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and data != b"[DONE]":
            try:
                orjson.loads(data)
            except orjson.JSONDecodeError:
                return False
    return True
