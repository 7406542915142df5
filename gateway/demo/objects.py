"""Knows what the fake provider keeps between calls: files, batches and responses, bounded in number and in bytes."""

from __future__ import annotations

from typing import Any

MOST = 4096  # objects of a kind; the oldest goes first
MOST_BYTES = 256 * 1024 * 1024  # contents of files


class Objects:
    """Objects by kind and id, in the order they were made."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, dict[str, Any]]] = {}
        self._contents: dict[str, bytes] = {}
        self._bytes = 0

    def put(self, kind: str, key: str, value: dict[str, Any], content: bytes | None = None) -> None:
        """Keeps `value`, and for a file its content."""
        kept = self._kept.setdefault(kind, {})
        kept[key] = value
        if content is not None:
            self._contents[key] = content
            self._bytes += len(content)
        while len(kept) > MOST or (self._bytes > MOST_BYTES and len(kept) > 1):
            self.drop(kind, next(iter(kept)))

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """The object, or None."""
        return self._kept.get(kind, {}).get(key)

    def content(self, key: str) -> bytes:
        """A file's content; empty where there is none."""
        return self._contents.get(key, b"")

    def drop(self, kind: str, key: str) -> bool:
        """Forgets the object; False where there was none."""
        self._bytes -= len(self._contents.pop(key, b""))
        return self._kept.get(kind, {}).pop(key, None) is not None

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """All objects of a kind, newest first."""
        return list(reversed(self._kept.get(kind, {}).values()))

    def clear(self) -> None:
        """Forgets everything."""
        self._kept.clear()
        self._contents.clear()
        self._bytes = 0


def page(items: list[dict[str, Any]], limit: int, after: str | None) -> dict[str, Any]:
    """One page of a list, as OpenAI sends it: after the object called `after`, `limit` at most."""
    if after is not None:
        ids = [item["id"] for item in items]
        items = items[ids.index(after) + 1 :] if after in ids else []
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }
