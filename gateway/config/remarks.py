"""What is allowed and yet worth telling: read otherwise than written, without effect, easy to guess."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gateway.config.layers import get, has
from gateway.config.people import ClientSettings, KeySettings
from gateway.config.problems import Path, dotted
from gateway.config.settings import Settings, scope_names
from gateway.routes import TABLE
from gateway.scopes import not_among

_SLASHES = re.compile(r"(?<!:)/{2,}")  # a slash too many often comes with a variable, and is nothing to tell


def remarks(settings: Settings, live: Settings, data: Any) -> Iterator[str]:
    """Sentences about settings that passed every check; `live` is what they come to, `data` what was written."""
    yield from _addresses(settings, data)
    yield from _idle_parts(settings)
    yield from _strange_scopes(settings, live)


def _addresses(settings: Settings, data: Any) -> Iterator[str]:
    for section, endpoints in (("providers", settings.providers), ("workers", settings.workers)):
        for name, endpoint in endpoints.items():
            path: Path = (section, name, "base_url")
            written = get(data, path) if has(data, path) else endpoint.base_url
            if _SLASHES.sub("/", written.strip()).rstrip("/") != endpoint.base_url:
                yield f"{dotted(path)}: {written} is read as {endpoint.base_url}"


def _idle_parts(settings: Settings) -> Iterator[str]:
    reached = {target.provider for model in settings.models.values() for target in model.targets}
    for name, provider in settings.providers.items():
        if settings.models and provider.kind != "http" and name not in reached:
            yield f"provider {name!r} is the target of no model, so only routes without a model reach it"
    listed = {entry.partition(":")[0].rpartition(".")[2] for entry in settings.policies}
    for name in settings.policy:
        if name not in listed and not any(":" in entry for entry in settings.policies):
            yield f"[policy.{name}] has no effect: {name!r} is not in the list of policies"
    routes = {route.name for route in TABLE}
    for name in settings.hedge.routes:
        if name not in routes:
            near = not_among(name, routes)
            yield f"hedge.routes: there is no route {name!r}{f'; did you mean {near!r}?' if near else ''}"


def _strange_scopes(settings: Settings, live: Settings) -> Iterator[str]:
    """Models and workers that there are none of: allowed, since the file may come to have them."""
    names = scope_names(live)
    for name, client in settings.clients.items():
        for path, scoped in ((("clients", name), client), *_keys_of(name, client)):
            for sentence in names.strangers(scoped.scope()):
                yield f"{dotted(path)}: {sentence}"


def _keys_of(name: str, client: ClientSettings) -> Iterator[tuple[Path, KeySettings]]:
    for index, key in enumerate(client.keys):
        yield ("clients", name, "keys", index), key
