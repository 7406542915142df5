"""`tidegate usage`: who spent what, from the ledger's sums; and its calls, one by one."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.records import ask_records

_NS = 1_000_000_000
_AGO = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SHOWN = (
    "calls",
    "refused",
    "failed",
    "attempts",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "cost_usd",
    "charge_usd",
)
_CALL_SHOWN = (
    "id",
    "client",
    "route",
    "model",
    "provider",
    "outcome",
    "status",
    "input_tokens",
    "output_tokens",
    "cost_usd",
)
_NUMBERS = {*_SHOWN, "status"}


def usage(
    by: Annotated[
        str, typer.Option(help="Comma-separated: org, client, key, model, provider, route, minute, hour, day (UTC).")
    ] = "client,model,day",
    since: Annotated[
        str | None, typer.Option(help="From when: 2026-11-24, 2026-11-24T10:00Z, or 90m, 24h, 7d ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Until when, likewise [now].")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Filter, repeatable: client=acme, model=gpt-4o, ...")] = None,
    calls: Annotated[bool, typer.Option("--calls", help="The newest calls instead of sums.")] = False,
    call: Annotated[str | None, typer.Option(help="The attempts of one call, by its id.")] = None,
    limit: Annotated[int, typer.Option(help="How many calls.", min=1, max=1000)] = 100,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file [./gateway.toml].")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Data directory [the configuration's].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, money as decimal strings.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Print what was used and what it cost."""
    from gateway.records.queries import CALL_FILTERS
    from gateway.records.schema import DIMENSIONS

    filters = _filters(only or [], CALL_FILTERS if calls else DIMENSIONS)
    if call is not None:
        rows = ask_records(config, data_dir, "attempts", call=call)
        _print(rows, list(rows[0]) if rows else [], "Attempts", as_json, as_csv)
    elif calls:
        rows = ask_records(config, data_dir, "calls", limit=limit, filters=filters)["rows"]
        _print(rows, list(_CALL_SHOWN), "Calls", as_json, as_csv)
    else:
        groups = _groups(by)
        since_ns, until_ns = _moment(since, "--since"), _moment(until, "--until")
        rows = ask_records(
            config, data_dir, "usage", by=groups, since_wall_ns=since_ns, until_wall_ns=until_ns, filters=filters
        )
        _print(rows, [*groups, *_SHOWN], "Usage", as_json, as_csv)


def _print(rows: list[dict[str, Any]], columns: list[str], title: str, as_json: bool, as_csv: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
    elif as_csv:
        everything = list(rows[0]) if rows else columns
        writer = csv.DictWriter(sys.stdout, everything, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif not rows:
        typer.echo("Nothing yet.")
    else:
        from gateway.cli.tables import table

        table(title, columns, [[str(row[name]) for name in columns] for row in rows], _NUMBERS)


def _groups(by: str) -> list[str]:
    from gateway.records.queries import check_groups

    groups = [word.strip() for word in by.split(",") if word.strip()]
    try:
        check_groups(groups, {})
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--by") from None
    return groups


def _filters(only: list[str], known: tuple[str, ...]) -> dict[str, str]:
    filters = {}
    for pair in only:
        name, equals, value = pair.partition("=")
        if not equals or name not in known:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE with NAME of {', '.join(known)}", param_hint="--only")
        filters[name] = value
    return filters


def _moment(text: str | None, option: str) -> int | None:
    """Nanoseconds since the epoch; times without a zone are UTC."""
    if text is None:
        return None
    unit = _AGO.get(text[-1:])
    if unit is not None and text[:-1].isdigit():
        moment = datetime.now(UTC) - timedelta(**{unit: int(text[:-1])})
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is no time; 2026-11-24, 2026-11-24T10:00Z or 7d are", param_hint=option
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * _NS
