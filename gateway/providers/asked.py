"""The fields of a request that admission knows, with their types; everything else is the provider's business."""

from __future__ import annotations

import re
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec

from gateway.errors import BadRequest

#: A number of tokens. Negative ones would be reserved as a gift, larger ones fit no column.
Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Copies = Annotated[int, msgspec.Meta(ge=1, le=100_000)]

_AT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)

Shape = TypeVar("Shape", bound=msgspec.Struct)


class Asked(msgspec.Struct):
    """What every call of a model may have."""

    model: str | None = None
    stream: bool | None = None
    store: bool | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class AskedChat(Asked):
    """POST /v1/chat/completions, /v1/completions."""

    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    n: Copies | None = None
    best_of: Copies | None = None
    stream_options: StreamOptions | None = None
    modalities: list[str] | None = None
    web_search_options: Any = None
    tools: list[Any] | None = None


class AskedResponse(Asked):
    """POST /v1/responses."""

    max_output_tokens: Tokens | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    tools: list[Any] | None = None


class AskedImages(Asked):
    """POST /v1/images/*, as JSON."""

    n: Copies | None = None
    size: str | None = None
    quality: str | None = None


class AskedSpeech(Asked):
    """POST /v1/audio/speech."""

    input: str | None = None
    stream_format: str | None = None


class AskedMessage(Asked):
    """POST /v1/messages and its count_tokens."""

    max_tokens: Tokens | None = None
    tools: list[Any] | None = None
    mcp_servers: list[Any] | None = None


def read(body: Any, shape: type[Shape]) -> Shape:
    """The known fields of a parsed body. Raises BadRequest, naming the field that has a wrong type."""
    if type(body) is not dict:
        raise BadRequest(f"The body must be a JSON object, not {_name_of(body)}.")
    try:
        return msgspec.convert(body, shape)
    except msgspec.ValidationError as error:
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    found = _AT.fullmatch(message)
    what, where = (found["what"], found["where"]) if found is not None else (message, None)
    what = what.replace("`", "'").replace(" | null", "")
    raise BadRequest(f"Invalid value for '{where or 'body'}': {what[:1].lower()}{what[1:]}.", param=where) from None


def _name_of(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def is_hosted(tools: list[Any] | None, bounded: tuple[str, ...]) -> bool:
    """Whether any tool runs at the provider, with costs of its own: all but those whose type begins with one named."""
    for tool in tools or ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and not kind.startswith(bounded):
            return True
    return False
