"""Whether a client and its key may use a name: both must allow it. And whether a scope's names mean anything."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from gateway.clients import Client, Key, Scope

What = Literal["models", "routes", "workers"]


def allows(patterns: tuple[str, ...] | None, name: str) -> bool:
    """None allows everything, an empty tuple nothing; `*` stands for any characters."""
    if patterns is None:
        return True
    return any(pattern in ("*", name) or ("*" in pattern and fnmatchcase(name, pattern)) for pattern in patterns)


def may_use(client: Client, key: Key, what: What, name: str) -> bool:
    """Client and key both allow this model, route or worker."""
    return allows(getattr(client.scope, what), name) and allows(getattr(key.scope, what), name)


def route_names() -> list[str]:
    """What a scope may call routes: those that calls are made on."""
    from gateway.routes import TABLE

    return sorted({route.name for route in TABLE if route.plane == "data"})


def not_among(pattern: str, known: Collection[str]) -> str | None:
    """None where a scope's entry fits one of these names or patterns, else what was probably meant, or ""."""
    for name in known:
        if pattern == name or fnmatchcase(name, pattern) or ("*" in name and fnmatchcase(pattern, name)):
            return None
    return next(iter(get_close_matches(pattern, known, n=1, cutoff=0.6)), "")


@dataclass(frozen=True, slots=True)
class ScopeNames:
    """The models (names, aliases, patterns) and workers of a configuration."""

    models: tuple[str, ...]
    workers: tuple[str, ...]

    def strangers(self, scope: Scope) -> Iterator[str]:
        """Sentences about entries that fit nothing in the configuration: allowed, since it may come to have them."""
        yield from _strangers("model", scope.models or (), self.models)
        yield from _strangers("worker", scope.workers or (), self.workers)

    def strange_models(self, entries: Iterable[str]) -> Iterator[str]:
        """The same about models that policies name."""
        return _strangers("model", entries, self.models)


def _strangers(what: str, entries: Iterable[str], known: Collection[str]) -> Iterator[str]:
    for entry in entries:
        near = not_among(entry, known)
        if near is not None:
            meant = f"; did you mean {near!r}?" if near else ""
            yield f"no {what} of the configuration is called {entry!r}{meant}"
