"""What a request's body mentions besides its text: objects stored at the provider, and content that is not there.

Objects belong to the org that made them (TERMS 12), so nothing that a provider would look up may be missed, however its
key is spelt: the parsed value is walked, not its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.jsonbody import is_flat

#: Members whose value is the id of a stored object, or a list of ids, or an object with an `id`.
_ID_KEYS = (
    "assistant_id",
    "comparison_response_id",
    "container",
    "conversation",
    "file_id",
    "file_ids",
    "input_file_id",
    "previous_response_id",
    "response_id",
    "thread_id",
    "training_file",
    "validation_file",
    "vector_store_id",
    "vector_store_ids",
)

#: Members that may bring in content whose tokens can't be told from the bytes of the body.
_CONTENT_KEYS = ("file_data", "file_url", "image_url", "input_audio", "media_type", "url")

_WATCHED = frozenset(_ID_KEYS + _CONTENT_KEYS)
_NESTED = frozenset({dict, list})

#: Members that no provider takes instructions from: the caller's own data, schemas, quotations of earlier answers.
_OPAQUE = frozenset(
    {"annotations", "citations", "input_schema", "json_schema", "metadata", "parameters", "results", "schema"}
)

#: Whose `input` is a model's call of a tool, quoted.
_TOOL_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})


#: What an inline image may cost at most, in tokens, whatever its bytes; models that charge more settle into debt.
IMAGE_TOKENS = 4_096


@dataclass(slots=True)
class Mentions:
    """Ids of stored objects, each once, in the order they were met; inline images; and whether there is content whose
    size is not known: files and pictures by reference, sound, PDF."""

    ids: dict[str, None] = field(default_factory=dict)
    images: int = 0
    is_unbounded: bool = False

    def note(self, container: dict[str, Any]) -> None:
        """Reads one object that has at least one watched member."""
        for key in _ID_KEYS:
            self._note_id(container.get(key))
        for key in _CONTENT_KEYS:
            if key in container:
                self._note_content(key, container[key])

    def _note_id(self, value: Any) -> None:
        if isinstance(value, str):
            self.ids[value] = None
        elif isinstance(value, list):
            for item in value:
                self._note_id(item)
        elif isinstance(value, dict) and isinstance(value.get("id"), str):
            self.ids[value["id"]] = None

    def _note_content(self, key: str, value: Any) -> None:
        if key == "image_url" and isinstance(value, dict):
            return  # its own `url` tells
        text = value if isinstance(value, str) else ""
        if text.startswith("data:image/" if key != "media_type" else "image/"):
            self.images += 1
        elif key != "media_type" or text == "application/pdf":
            self.is_unbounded = True


def mentions(body: dict[str, Any]) -> Mentions:
    """Walks the body level by level; `jsonbody.parse` has bounded its depth and size."""
    found = Mentions()
    level: list[Any] = [body]
    while level:
        below: list[Any] = []
        for container in level:
            if type(container) is dict:
                if not _WATCHED.isdisjoint(container):
                    found.note(container)
                if _NESTED.isdisjoint(map(type, container.values())):
                    continue
                for key, value in container.items():
                    if (type(value) is dict or type(value) is list) and not _is_opaque(key, container):
                        below.append(value)
            elif len(container) <= 64 or not is_flat(container):
                for value in container:
                    if type(value) is dict or type(value) is list:
                        below.append(value)
        level = below
    return found


def models_within(body: dict[str, Any]) -> tuple[str, ...]:
    """Names of models further inside a body than its own `model`: of a batch's requests, an evaluation's graders."""
    found: dict[str, None] = {}
    level: list[Any] = [body]
    while level:
        below: list[Any] = []
        for container in level:
            if type(container) is dict:
                name = container.get("model")
                if container is not body and isinstance(name, str):
                    found[name] = None
                below += [value for key, value in container.items() if not _is_opaque(key, container)]
            elif type(container) is list and not is_flat(container):
                below += container
        level = below
    return tuple(found)


def _is_opaque(key: str, container: dict[str, Any]) -> bool:
    return key in _OPAQUE or (key == "input" and container.get("type") in _TOOL_CALLS)
