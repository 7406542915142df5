"""`tidegate check` and `tidegate config`: what the configuration comes to, and where each value is from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.flags import ConfigOption, DataDirOption, ListenOption, SetOption, flags, loaded_or_exit

if TYPE_CHECKING:
    from gateway.config import Loaded, Settings
    from gateway.prices import Quote
    from gateway.usage import Usage

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

config_app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)


@config_app.command("show")
def show(
    section: Annotated[str, typer.Argument(help="Only this table, such as server or providers.openai.")] = "",
    config: ConfigOption = None,
    listen: ListenOption = None,
    data_dir: DataDirOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print every setting with its value and where it came from; credentials are masked."""
    from gateway.config.display import rows

    loaded = loaded_or_exit(config, as_json, flags(set_, listen=listen, data_dir=data_dir))
    found = [row for row in rows(loaded, os.environ) if _within(row.key, section)]
    if not found:
        typer.echo(f"there is no setting in {section!r}", err=True)
        raise typer.Exit(1)
    if as_json:
        settings = {row.key: {"value": row.value, "origin": row.origin} for row in found}
        typer.echo(json.dumps({"file": _name(loaded), "settings": settings}, indent=2))
        return
    typer.echo(f"# {_name(loaded) or 'no file: defaults and environment'}")
    width = min(44, max(len(row.key) for row in found))
    values = [row.toml for row in found]
    value_width = min(40, max(len(value) for value in values))
    for row, value in zip(found, values, strict=True):
        typer.echo(f"{row.key:<{width}} = {value:<{value_width}}  # {row.origin}")


def _within(key: str, section: str) -> bool:
    return not section or key == section or key.startswith((f"{section}.", f"{section}["))


@config_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of gateway.toml, for completion and checks in editors."""
    from gateway.config.display import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def check(
    config: ConfigOption = None,
    listen: ListenOption = None,
    data_dir: DataDirOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration and print what it comes to: the pipeline in order, providers, models, workers.

    Where the data directory has a database, it is looked whether the two fit each other.
    """
    from gateway.config import effective

    loaded = loaded_or_exit(config, as_json, flags(set_, listen=listen, data_dir=data_dir))
    _check_database(loaded.settings, as_json)
    live = effective(loaded.settings, os.environ)
    report = {
        "ok": True,
        "file": _name(loaded),
        "demo": live.demo,
        "policies": _pipeline(live),
        "providers": _providers(live),
        "models": _models(live),
        "workers": {name: _shown_url(worker.base_url) for name, worker in live.workers.items()},
        "clients": {name: len(client.keys) for name, client in live.clients.items()},
        "warnings": list(loaded.warnings),
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2, default=str))
        return
    _print_report(report)


def _check_database(settings: Settings, as_json: bool) -> None:
    """Ends the command with 1 where a start would refuse what clients and keys the two have together."""
    path = Path(settings.server.data_dir) / "tidegate.db"
    if not path.is_file():
        return
    from gateway.config import ConfigError, Problem, show_problems
    from gateway.records.agreement import disagreements

    found = [Problem(sentence, str(path)) for sentence in disagreements(settings)]
    if found:
        show_problems(ConfigError(found), as_json)
        raise typer.Exit(1)


def _shown_url(base_url: str) -> str:
    from gateway.config.effective import NO_ADDRESS

    return base_url.replace(NO_ADDRESS, "the fake provider inside, ")


def _name(loaded: Loaded) -> str | None:
    return None if loaded.path is None else str(loaded.path)


def _pipeline(live: Settings) -> list[dict[str, Any]]:
    from gateway.policy import build, known_settings, policy_class

    steps = []
    for entry in live.policies:
        cls = policy_class(entry)
        policy = build(entry, dict(live.policy.get(cls.name, {})))
        settings = {name: getattr(policy, name) for name in known_settings(cls) if name != "mode"}
        steps.append({"policy": cls.name, "mode": policy.mode, "after": list(cls.after), "settings": settings})
    return steps


def _providers(live: Settings) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "kind": provider.kind,
            "base_url": "the fake provider inside" if provider.demo else provider.base_url,
            "client": provider.client,
            "key": bool(provider.key),
            "max_concurrent": provider.max_concurrent,
        }
        for name, provider in live.providers.items()
    }


def _models(live: Settings) -> dict[str, dict[str, Any]]:
    price = _pricing(live)
    models = {}
    for name, model in live.models.items():
        targets = [
            {"to": target.to, "weight": target.weight, "price": price(name, target.provider, target.upstream_model)}
            for target in model.targets
        ]
        models[name] = {"aliases": list(model.aliases), "targets": targets}
    return models


def _pricing(live: Settings) -> Any:
    """Gives what a target costs, in words; None for patterns, whose price is that of the name that is asked for."""
    from gateway.prices import Prices
    from gateway.usage import Usage

    prices = Prices({name: price.override() for name, price in live.prices.items()})

    def words(name: str, provider: str, model: str) -> str | None:
        if "*" in name or "*" in model:
            return None
        quote = prices.quote(live.providers[provider].kind, provider, name, model)
        if quote.unpriced:
            return "unpriced"
        into = _usd_a_million(quote, Usage(input_tokens=1000))
        out = _usd_a_million(quote, Usage(output_tokens=1000))
        return f"USD {into} in, {out} out a million tokens; {quote.version}"

    return words


def _usd_a_million(quote: Quote, thousand: Usage) -> str:
    """From the cost of a thousand, since some prices rise with the length of the input."""
    from gateway.prices import PUSD

    return f"{Decimal(quote.cost(thousand) * 1000) / PUSD:f}"


def _print_report(report: Mapping[str, Any]) -> None:
    typer.echo(f"{report['file'] or 'No file: defaults and environment'}: the configuration is right.")
    typer.echo("\nA call is decided in this order:")
    for number, step in enumerate(report["policies"], 1):
        after = f"after {', '.join(step['after'])}" if step["after"] else ""
        settings = "  ".join(f"{key} = {_short(value)}" for key, value in step["settings"].items())
        typer.echo(f"  {number:>2}. {step['policy']:<12} {step['mode']:<8} {after:<16}  {settings}".rstrip())
    typer.echo("\nProviders:")
    for name, one in report["providers"].items():
        key = "" if one["key"] or report["demo"] else "  no key"
        typer.echo(f"  {name:<16} {one['kind']:<10} {one['base_url']}  ({one['client']} client){key}")
    typer.echo("\nModels:")
    for name, model in report["models"].items():
        also = f" (also {', '.join(model['aliases'])})" if model["aliases"] else ""
        targets = ", ".join(_target(target) for target in model["targets"])
        typer.echo(f"  {name}{also} -> {targets}")
    if report["workers"]:
        typer.echo("\nWorkers:")
        for name, url in report["workers"].items():
            typer.echo(f"  /workers/{name}/... -> {url}")
    for warning in report["warnings"]:
        typer.echo(f"\nwarning: {warning}")


def _target(target: Mapping[str, Any]) -> str:
    weight = f" x{target['weight']}" if target["weight"] else ""
    price = f" [{target['price']}]" if target["price"] else ""
    return f"{target['to']}{weight}{price}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
