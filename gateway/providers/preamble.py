"""What a reply with status 200 says before any content: nothing yet, content, or that the provider gave up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from gateway.providers.reported import read_any
from gateway.sse import end_of_events

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.targets import Target

Beginning = Literal["nothing", "content", "error"]

#: Longest preamble that is held back, bytes.
MOST_BYTES = 65_536

#: Routes whose streams are known well enough to tell their preamble from their content.
_KNOWN = frozenset(("chat", "completions", "responses", "messages"))

#: Anything that was generated, or an end: a text that is not empty, a tool's name, a reason to finish. Typed events:
#: all deltas, and blocks of tools, whose start names them. (That it begins with one byte makes it quick.)
_CONTENT = re.compile(
    rb'"(?:(?:content|text|refusal|reasoning|reasoning_content|thinking|partial_json|arguments|name|signature|data)"'
    rb'\s*:\s*"[^"]|(?:finish_reason|stop_reason)"\s*:\s*"|[a-z_.]+\.(?:delta|done|completed|incomplete)"'
    rb'|(?:tool_calls|function_call|message_stop)")'
)
#: What content mostly looks like.
_USUAL, _TYPED = b'"content":"', b"content_block_delta"

#: An error that is an object or a text, or an event of that type.
_ERROR = re.compile(rb'"(?:error"\s*:\s*[{"]|type"\s*:\s*"(?:error|response\.failed)")')


def beginning_of(route: str, data: bytes) -> Beginning:
    """What the first bytes of a stream hold. Half an error is nothing yet; a burst is not searched beyond its first
    content, before which alone an error would count."""
    is_known = route in _KNOWN
    content = _content_at(data) if is_known else -1
    before = data[: end_of_events(data) if content < 0 else content]
    if _ERROR.search(before) is not None:
        return "error"
    return "content" if content >= 0 or (before and not is_known) else "nothing"


def _content_at(data: bytes) -> int:
    """Where the first content is, -1 where there is none."""
    at = data.find(_USUAL)
    while at >= 0 and data[at + len(_USUAL) : at + len(_USUAL) + 1] in (b'"', b""):
        at = data.find(_USUAL, at + 1)
    if at < 0:
        at = data.find(_TYPED)
    if at < 0:
        found = _CONTENT.search(data)
        at = data.find(b"[DONE]") if found is None else found.start()
    return at


def gave_up(call: Call, target: Target, headers: list[tuple[bytes, bytes]], data: bytes) -> bool:
    """Whether a stream that began like this is the provider's refusal to work now, by its own meter."""
    meter = target.provider.kind.meter(call, target, 200, headers)
    meter.feed(data)
    return meter.finish(complete=True)[2] == "overloaded"


def disguise_of(body: bytes, is_json: bool) -> str:
    """The row of the failure table for a whole 200 that is no reply of its route."""
    value = read_any(body) if is_json else None
    error = None if value is None else value.get("error")
    if not error:
        return "unreadable" if is_json else "html"
    kind = error.get("type") if isinstance(error, dict) else None
    return "overloaded" if kind == "overloaded_error" else "error_body"
