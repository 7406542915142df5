"""Which models there are, and where each can be served."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

from gateway.errors import ModelNotFound, NotFound
from gateway.providers.base import Provider
from gateway.targets import Target

#: What a provider itself assumes when a body names no model.
DEFAULT_MODELS = {"moderations": "omni-moderation-latest", "images": "dall-e-2"}

#: Names that wildcards resolved and that are kept ready; more are resolved anew each time.
MAX_RESOLVED = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the configuration: its public name or pattern, and its targets in the order they are tried."""

    name: str
    targets: tuple[Target, ...]
    aliases: tuple[str, ...] = ()

    @property
    def is_pattern(self) -> bool:
        return "*" in self.name


class Catalog:
    """Resolves public names, aliases and patterns. The longest pattern wins."""

    def __init__(self, entries: Iterable[Entry], reprice: Callable[[Target], Target] = lambda target: target) -> None:
        self._reprice = reprice  # a wildcard's target gets its price when its name is known
        self._named: dict[str, Entry] = {}
        self._patterns: list[Entry] = []
        for entry in entries:
            if entry.is_pattern:
                self._patterns.append(entry)
                continue
            for name in (entry.name, *entry.aliases):
                self._named[name] = entry
        self._patterns.sort(key=lambda entry: len(entry.name), reverse=True)
        self._resolved: dict[tuple[str, str], list[Target]] = {}

    def resolve(self, model: str, kind: str) -> list[Target]:
        """The targets of a public name on routes of one provider kind, in order. Raises ModelNotFound."""
        key = (model, kind)
        known = self._resolved.get(key)
        if known is not None:
            return known
        targets = [target for target in self._all(model) if target.provider.kind.name == kind]
        if not targets:
            raise self._unknown(model, kind)
        if len(self._resolved) >= MAX_RESOLVED:
            self._resolved.clear()
        self._resolved[key] = targets
        return targets

    def public_name(self, model: str) -> str:
        """What an alias stands for; other names are their own."""
        entry = self._named.get(model)
        return model if entry is None else entry.name

    def names(self, kind: str) -> list[str]:
        """Names and aliases that are served on routes of one kind; patterns are not among them."""
        return [
            name
            for name, entry in self._named.items()
            if any(target.provider.kind.name == kind for target in entry.targets)
        ]

    def pattern_providers(self, kind: str) -> list[tuple[str, Provider]]:
        """Patterns with the provider that could list what they stand for."""
        found = []
        for entry in self._patterns:
            for target in entry.targets:
                if target.provider.kind.name == kind:
                    found.append((entry.name, target.provider))
        return found

    def _all(self, model: str) -> list[Target]:
        entry = self._named.get(model)
        if entry is not None:
            return list(entry.targets)
        for entry in self._patterns:
            if fnmatchcase(model, entry.name):
                return [
                    self._reprice(
                        replace(target, model=model, upstream_model=target.upstream_model.replace("*", model, 1))
                    )
                    for target in entry.targets
                ]
        return []

    def _unknown(self, model: str, kind: str) -> ModelNotFound:
        elsewhere = {target.provider.kind.name for target in self._all(model)}
        if elsewhere:
            return ModelNotFound(
                f"Model '{model}' is served on {' and '.join(sorted(elsewhere))} routes, not on {kind} routes.",
                param="model",
            )
        near = get_close_matches(model, self.names(kind), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        return ModelNotFound(
            f"The model '{model}' is not configured here.{hint} GET /v1/models lists what this key may use.",
            param="model",
        )


class Providers:
    """The configured providers and workers by name."""

    def __init__(self, providers: dict[str, Provider], workers: dict[str, Provider]) -> None:
        self.providers = providers
        self.workers = workers

    def default(self, kind: str, wanted: str = "") -> Provider:
        """The provider of routes that name no model: the one asked for, else the first of its kind."""
        if wanted:
            found = self.providers.get(wanted)
            if found is None or found.kind.name != kind:
                raise NotFound(f"There is no provider '{wanted}' on {kind} routes.", code="provider_not_found")
            return found
        for provider in self.providers.values():
            if provider.kind.name == kind:
                return provider
        raise NotFound(f"No provider of kind {kind} is configured, so nothing can serve this path.")

    def worker(self, name: str) -> Provider:
        """Raises NotFound."""
        found = self.workers.get(name)
        if found is None:
            near = get_close_matches(name, self.workers, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise NotFound(f"There is no worker '{name}'.{hint}", code="worker_not_found")
        return found
