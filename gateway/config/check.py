"""What must hold between tables: targets name providers, clients name tiers, names are unique."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from gateway.config.effective import KEY_VARIABLES
from gateway.config.problems import Path, Problem, dotted
from gateway.config.settings import Settings
from gateway.config.translate import Place
from gateway.scopes import not_among, route_names


def near(name: str, known: Iterable[str]) -> str:
    """A "did you mean" for a name that is not among those known, or ""."""
    found = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {found[0]!r}?" if found else ""


def cross_check(settings: Settings, live: Settings, place: Place) -> list[Problem]:
    """Problems between tables. `live` is what the settings come to (`effective`)."""
    return [
        *_targets(settings, live, place),
        *_aliases(settings, place),
        *_clients(settings, place),
        *_claims(settings, place),
        *_workers(settings, place),
        *_pools(settings, place),
        *_scoped_routes(settings, place),
    ]


def _targets(settings: Settings, live: Settings, place: Place) -> Iterator[Problem]:
    for name, model in settings.models.items():
        for index, target in enumerate(model.targets):
            path: Path = ("models", name, "targets", index)
            provider = live.providers.get(target.provider)
            if provider is None:
                yield _unknown_provider(target.provider, path, live, place)
            elif "*" in target.upstream_model and "*" not in name:
                yield place.problem(
                    f"target {target.to!r} takes its model's name from a pattern, but {name!r} is none",
                    path,
                    expected=f'the model\'s name at the provider, such as "{target.provider}/{name}"',
                )


def _unknown_provider(name: str, path: Path, live: Settings, place: Place) -> Problem:
    known = [provider for provider, of in live.providers.items() if not of.demo]
    hint = near(name, known)
    if name in live.workers:
        hint = f"{name!r} is of kind http: a worker, reached at /workers/{name}/..., not by models"
    elif not hint and name in KEY_VARIABLES:
        hint = f"add [providers.{name}], or set {KEY_VARIABLES[name]} and configure no provider at all"
    elif not hint:
        hint = f"add a table [providers.{dotted((name,))}]"
    expected = f"one of {', '.join(known)}" if known else "a configured provider"
    return place.problem(f"unknown provider {name!r} in a target", path, expected=expected, hint=hint)


def _aliases(settings: Settings, place: Place) -> Iterator[Problem]:
    owners = {name: f"model {name!r}" for name in settings.models}
    for name, model in settings.models.items():
        for index, alias in enumerate(model.aliases):
            path: Path = ("models", name, "aliases", index)
            if "*" in alias:
                yield place.problem(f"alias {alias!r} is a pattern", path, expected="a plain name")
            elif alias in owners:
                yield place.problem(
                    f"alias {alias!r} of model {name!r} is taken by {owners[alias]}",
                    path,
                    expected="a name that no model and no other alias has",
                )
            owners.setdefault(alias, f"an alias of model {name!r}")


def _clients(settings: Settings, place: Place) -> Iterator[Problem]:
    secrets: dict[str, Path] = {}
    ids: dict[str, Path] = {}
    for name, client in settings.clients.items():
        if client.tier not in settings.tiers:
            yield place.problem(
                f"unknown tier {client.tier!r} of client {name!r}",
                ("clients", name, "tier"),
                expected=f"one of {', '.join(settings.tiers)}",
                hint=near(client.tier, settings.tiers),
            )
        for index, key in enumerate(client.keys):
            path: Path = ("clients", name, "keys", index)
            secret = key.secret if key.secret is not None else key.hash
            for seen, value, what in (
                (secrets, "" if secret is None else secret.get_secret_value(), "secret"),
                (ids, key.id or "", "id"),
            ):
                if value and value in seen:
                    other = place.of(seen[value]).get("line", 0)
                    where = f" (line {other})" if other else ""
                    yield place.problem(f"{dotted(path)} has the {what} of {dotted(seen[value])}{where}", path,
                                        expected=f"a {what} of its own for each key")  # fmt: skip
                seen.setdefault(value, path)


def _claims(settings: Settings, place: Place) -> Iterator[Problem]:
    """A claim of a tier that is not there would be nobody's."""
    claims = settings.policy.get("queue", {}).get("claims")
    for tier in claims if isinstance(claims, dict) else ():
        if tier not in settings.tiers:
            yield place.problem(
                f"unknown tier {tier!r}",
                ("policy", "queue", "claims", tier),
                value=False,
                expected=f"one of {', '.join(settings.tiers)}",
                hint=near(tier, settings.tiers),
            )


def _workers(settings: Settings, place: Place) -> Iterator[Problem]:
    for name, provider in settings.providers.items():
        if provider.kind == "http" and name in settings.workers:
            yield place.problem(
                f"{name!r} is a worker and a provider of kind http, which is a worker too",
                ("providers", name),
                value=False,
                expected="one of the two tables",
            )


def _pools(settings: Settings, place: Place) -> Iterator[Problem]:
    """Whoever takes of a pool names one that is there."""
    named: list[Path] = []
    for model, one in settings.models.items():
        named += [("models", model, "pools", pool) for pool in one.pools]
        for index, target in enumerate(one.targets):
            named += [("models", model, "targets", index, "pools", pool) for pool in target.pools or ()]
    for worker, it in settings.workers.items():
        named += [("workers", worker, "pools", pool) for pool in it.pools]
        for index, pool in enumerate(it.stated_pools):
            if pool not in settings.pools:
                yield _no_pool(pool, ("workers", worker, "stated_pools", index), settings, place, value=True)
    routes = settings.policy.get("pool", {}).get("routes")
    for route, amounts in routes.items() if isinstance(routes, dict) else ():
        named += [("policy", "pool", "routes", route, pool) for pool in amounts if isinstance(amounts, dict)]
    for path in named:
        if path[-1] not in settings.pools:
            yield _no_pool(str(path[-1]), path, settings, place, value=False)


def _no_pool(name: str, path: Path, settings: Settings, place: Place, *, value: bool) -> Problem:
    return place.problem(
        f"unknown pool {name!r}",
        path,
        value=value,
        expected=f"one of {', '.join(settings.pools)}",
        hint=near(name, settings.pools) or f"add a table [pools.{dotted((name,))}]",
    )


def _scoped_routes(settings: Settings, place: Place) -> Iterator[Problem]:
    for name, client in settings.clients.items():
        yield from _routes(client.routes, ("clients", name), place)
        for index, key in enumerate(client.keys):
            yield from _routes(key.routes, ("clients", name, "keys", index), place)


def _routes(routes: tuple[str, ...] | None, scoped: Path, place: Place) -> Iterator[Problem]:
    """A route that does not exist would allow nothing, and nobody would know why."""
    known = route_names()
    for index, entry in enumerate(routes or ()):
        meant = not_among(entry, known)
        if meant is not None:
            yield place.problem(
                f"there is no route {entry!r}",
                (*scoped, "routes", index),
                expected=f"of {', '.join(known)}",
                hint=f"did you mean {meant!r}?" if meant else "",
            )
