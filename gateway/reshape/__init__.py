"""An answer in the other form: events made of a whole answer, or a whole answer made of events.

Only what is understood in full is reshaped: a field that is not known, or has another type, gives None, and whoever
asked gets no answer from here. What comes out is what the providers' references show for the other form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from gateway.reshape import chat, completions, messages, responses
from gateway.reshape.events import events_in
from gateway.usage import Usage

Events = Callable[[dict[str, Any], bool], list[bytes]]
Whole = Callable[[list[dict[str, Any]], Usage | None], dict[str, Any]]

_FORMS: dict[str, tuple[Events, Whole]] = {
    "chat": (chat.events_of, chat.whole_of),
    "completions": (completions.events_of, completions.whole_of),
    "messages": (messages.events_of, messages.whole_of),
    "responses": (responses.events_of, responses.whole_of),
}

#: What an answer of another shape than expected raises on its way through.
_UNLIKE = (AttributeError, IndexError, KeyError, TypeError, ValueError, orjson.JSONDecodeError)

#: Routes whose answers come in both forms.
ROUTES = frozenset(_FORMS)


def stream_of(route: str, body: bytes, *, usage: bool) -> tuple[bytes, ...] | None:
    """The events of a whole answer, each a chunk; with the event of usage where an OpenAI client asked for it."""
    try:
        return tuple(_FORMS[route][0](orjson.loads(body), usage))
    except _UNLIKE:
        return None


def whole_of(route: str, stream: bytes, usage: Usage | None) -> bytes | None:
    """The whole answer that a complete stream is. `usage` is what it was billed by, for streams that don't tell."""
    try:
        return orjson.dumps(_FORMS[route][1](events_in(stream), usage))
    except _UNLIKE:
        return None
