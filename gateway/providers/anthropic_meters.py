"""Replies of Anthropic's API: a message, or a stream whose usage is cumulative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.providers import texts
from gateway.providers.base import Verdict
from gateway.providers.meters import StreamMeter, WholeMeter, estimate, usage_near_end
from gateway.providers.reported import UNREADABLE, AnthropicUsage, Said, loosely, read_any
from gateway.providers.vocabulary import Vocabulary
from gateway.sse import data_of
from gateway.usage import Usage

if TYPE_CHECKING:
    from gateway.call import Call

_NOTHING: Said = (False, False)


class Container(msgspec.Struct):
    """Where hosted tools ran; may be named by a later call."""

    id: str | None = None


class Message(msgspec.Struct):
    """What is needed of a message, or of an error in its place."""

    id: str | None = None
    model: str | None = None
    error: Any = None
    usage: AnthropicUsage | None = None
    container: Container | None = None


class Delta(msgspec.Struct):
    container: Container | None = None


class Event(msgspec.Struct):
    """What is needed of one event of a stream."""

    type: str | None = None
    message: Message | None = None
    delta: Delta | None = None
    usage: AnthropicUsage | None = None
    error: Any = None


_MESSAGE = msgspec.json.Decoder(Message)
_EVENT = msgspec.json.Decoder(Event)


class MessageMeter(WholeMeter):
    """POST /v1/messages."""

    def _of_body(self, body: bytes) -> tuple[Usage, Verdict]:
        try:
            message = _MESSAGE.decode(body)
        except msgspec.ValidationError:
            value = read_any(body)
            if value is None:
                return Usage(), "error"
            message = _loose_message(value)
        except UNREADABLE:
            return (self._of_part(body) if body.lstrip()[:1] == b"{" else Usage()), "error"
        self.model = message.model or ""
        self.object_ids = _container_of(message.container)
        if message.error is not None:
            return Usage(), "error"
        usage = Usage()
        said = _NOTHING if message.usage is None else message.usage.into(usage)
        if not all(said):
            output = texts.of_reply(read_any(body))
            estimate(usage, said, self._call, self._vocabulary, output)
        return usage, "ok"

    def _of_part(self, body: bytes) -> Usage:
        usage = Usage()
        estimate(usage, _NOTHING, self._call, self._vocabulary, texts.of_part(body))
        return usage

    def _of_ends(self, head: bytes, tail: bytes) -> Usage:
        usage = Usage()
        reported = loosely(usage_near_end(tail), AnthropicUsage)
        said = _NOTHING if reported is None else reported.into(usage)
        if not all(said):
            estimate(usage, said, self._call, self._vocabulary, texts.Texts([tail.decode("utf-8", "replace")]))
        return usage


class MessageStream(StreamMeter):
    """POST /v1/messages, streamed. `message_start` states the input and a beginning of the output; each
    `message_delta` states everything so far."""

    def __init__(self, call: Call, vocabulary: Vocabulary) -> None:
        super().__init__(call, vocabulary)
        self._reported = AnthropicUsage()
        self._is_final = False  # the output that was stated is all of it

    def _read(self, event: bytes) -> None:
        read = _event(data_of(event))
        if read.message is not None:
            self.model = read.message.model or ""
            self.object_ids = _container_of(read.message.container)
            if read.message.usage is not None:
                self._reported.update(read.message.usage)
        if read.delta is not None and read.delta.container is not None:
            self.object_ids = _container_of(read.delta.container)
        if read.usage is not None:
            self._reported.update(read.usage)
            self._is_final = read.usage.output_tokens is not None

    def _read_long(self, head: bytes, tail: bytes) -> None:
        """Neither event with a usage is ever that long."""

    def _usage(self) -> tuple[Usage, Said]:
        usage = Usage()
        said = self._reported.into(usage)
        return usage, (said[0], said[1] and self._is_final)

    def _verdict(self, complete: bool) -> Verdict:
        ended = False
        for event in self._latest:
            read = _event(data_of(event))
            if read.type == "error":
                return "overloaded" if _is_overload(read.error) and not self._has_content else "error"
            ended = ended or read.type == "message_stop"
        return "ok" if ended else "cut"


def _event(data: bytes) -> Event:
    if data[:1] != b"{":
        return Event()
    try:
        return _EVENT.decode(data)
    except msgspec.ValidationError:
        value = read_any(data) or {}
    except UNREADABLE:
        return Event()
    message, kind = value.get("message"), value.get("type")
    return Event(
        type=kind if isinstance(kind, str) else None,
        message=_loose_message(message) if isinstance(message, dict) else None,
        usage=loosely(value.get("usage"), AnthropicUsage),
        error=value.get("error"),
    )


def _loose_message(value: dict[str, Any]) -> Message:
    model = value.get("model")
    return Message(
        model=model if isinstance(model, str) else None,
        error=value.get("error"),
        usage=loosely(value.get("usage"), AnthropicUsage),
    )


def _container_of(container: Container | None) -> tuple[str, ...]:
    return () if container is None or container.id is None else (container.id,)


def _is_overload(error: object) -> bool:
    return isinstance(error, dict) and error.get("type") == "overloaded_error"
