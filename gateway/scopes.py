"""Whether a client and its key may use a name: both must allow it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

from gateway.clients import Client, Key

What = Literal["models", "routes", "workers"]


def allows(patterns: tuple[str, ...] | None, name: str) -> bool:
    """None allows everything, an empty tuple nothing; `*` stands for any characters."""
    if patterns is None:
        return True
    return any(pattern in ("*", name) or ("*" in pattern and fnmatchcase(name, pattern)) for pattern in patterns)


def may_use(client: Client, key: Key, what: What, name: str) -> bool:
    """Client and key both allow this model, route or worker."""
    return allows(getattr(client.scope, what), name) and allows(getattr(key.scope, what), name)
