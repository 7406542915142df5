"""The fields of a request that admission knows, with their types; everything else is the provider's business."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import msgspec

from gateway.call import Facts
from gateway.errors import BadRequest
from gateway.providers.mentions import models_within

if TYPE_CHECKING:
    from gateway.routes import Route

#: A number of tokens. Negative ones would be reserved as a gift, larger ones fit no column.
Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Copies = Annotated[int, msgspec.Meta(ge=1, le=100_000)]

#: Members that cap the output, in all dialects.
_CAPS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "max_tokens_to_sample")

_AT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)
_TYPE = re.compile(r"`([^`]*)`")
#: JSON's words for what msgspec calls by Python's.
_TYPES = {
    "str": "a string", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "an array",
    "object": "an object", "null": "null",
}  # fmt: skip

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
    best_of: Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None = None  # 0 is as good as 1, and OpenAI's own least
    stream_options: StreamOptions | None = None
    modalities: list[str] | None = None
    web_search_options: Any = None
    tools: list[Any] | None = None
    models: Any = None  # to fall back to, where an upstream knows that


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


def typed(fields: dict[str, str], model: str | None) -> dict[str, Any]:
    """Fields of a form with the types that they would have in JSON. Its model may be known from elsewhere."""
    values: dict[str, Any] = {**fields, "model": model}
    if values.get("n", "").strip().isdecimal():
        values["n"] = int(values["n"])
    if "stream" in values:
        values["stream"] = values["stream"].strip().lower() in ("true", "1")
    return values


def passed_on(route: Route, body: Any, raw: bytes) -> Facts:
    """Of a request to a path that we know nothing about, or that names no model: nothing there has to be of a certain
    type. Where a model is named, its worst case is that of a call with one answer."""
    facts = Facts(max_tokens=0, units={"requests": 1})
    if type(body) is not dict:
        return facts
    facts.stream = body.get("stream") is True
    facts.more_models = models_within(body)
    if isinstance(body.get("model"), str):
        facts.model = body["model"]
    if facts.model is not None and route.name == "other":
        facts.is_routed = True
        facts.prompt_bytes = len(raw)
        caps = [body.get(name) for name in _CAPS]
        facts.max_tokens = max((cap for cap in caps if type(cap) is int and 0 <= cap < 2**31), default=None)
    return facts


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
    what = _TYPE.sub(lambda word: _TYPES.get(word[1], f"'{word[1]}'"), what.replace(" | null", ""))
    raise BadRequest(f"Invalid value for '{where or 'body'}': {what[:1].lower()}{what[1:]}.", param=where) from None


def _name_of(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def models_of(listed: Any) -> tuple[str, ...]:
    """Models that a call names besides its own: as names, or as tools that use them."""
    named = [one.get("model") if isinstance(one, dict) else one for one in listed] if isinstance(listed, list) else ()
    return tuple(name for name in named if isinstance(name, str))


def is_hosted(tools: list[Any] | None, bounded: tuple[str, ...]) -> bool:
    """Whether any tool runs at the provider, with costs of its own: all but those whose type begins with one named."""
    for tool in tools or ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and not kind.startswith(bounded):
            return True
    return False
