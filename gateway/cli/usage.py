"""`tidegate usage`: who spent what, from the ledger's sums; and its calls, one by one."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.records import ask_records, fail

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
    "units",
    "cost_usd",
    "charge_usd",
    "saved_usd",
    "estimated",
    "unpriced",
)
_SPARE = (
    "attempts", "charge_usd", "saved_usd", "cached_tokens", "failed", "estimated", "refused", "unpriced", "units",
    "day",
)  # fmt: skip
_CALL_SHOWN = (
    "id",
    "started",
    "client",
    "route",
    "model",
    "provider",
    "outcome",
    "status",
    "error",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "saving",
    "saved_usd",
)
_CALL_SPARE = ("saved_usd", "provider", "input_tokens", "output_tokens", "route", "outcome", "started", "error")
_NUMBERS = {*_SHOWN, "status"} - {"units"}
#: Columns that are left out where they are nothing but zeros.
_SELDOM = {"saved_usd", "refused", "failed", "cached_tokens", "estimated", "unpriced", "input_tokens", "output_tokens"}


def usage(
    by: Annotated[
        str, typer.Option(help="Comma-separated: org, client, key, model, provider, route, minute, hour, day (UTC).")
    ] = "client,model,day",
    since: Annotated[
        str | None, typer.Option(help="From when: 2026-11-24, 2026-11-24T10:00Z, or 90m, 24h, 7d ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Until when, likewise (default: now).")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Filter, repeatable: client=acme, model=gpt-4o, ...")] = None,
    calls: Annotated[bool, typer.Option("--calls", help="The newest calls instead of sums.")] = False,
    call: Annotated[str | None, typer.Option(help="One call and its attempts, by its id.")] = None,
    limit: Annotated[int, typer.Option(help="How many calls.", min=1, max=1000)] = 100,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file [./gateway.toml].")] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Data directory (default: the configuration's).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, money as decimal strings.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Print what was used and what it cost."""
    from gateway.records.queries import CALL_FILTERS
    from gateway.records.schema import DIMENSIONS

    if as_json and as_csv:
        fail("--json or --csv, not both")
    filters = _filters(only or [], CALL_FILTERS if calls else DIMENSIONS)
    if call is not None:
        _print_call(ask_records(config, data_dir, "call", id=call), as_json, as_csv)
    elif calls:
        rows = ask_records(config, data_dir, "calls", limit=limit, filters=filters)["rows"]
        _print(rows, _CALL_SHOWN, _CALL_SPARE, "Calls", as_json, as_csv)
    else:
        groups = _groups(by)
        since_ns, until_ns = _moment(since, "--since"), _moment(until, "--until")
        rows = ask_records(
            config, data_dir, "usage", by=groups, since_wall_ns=since_ns, until_wall_ns=until_ns, filters=filters
        )
        _print(rows, (*groups, *_SHOWN), _SPARE, "Usage", as_json, as_csv)


def _print(
    rows: list[dict[str, Any]],
    columns: tuple[str, ...],
    spare: tuple[str, ...],
    title: str,
    as_json: bool,
    as_csv: bool,
) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
    elif as_csv:
        _write_csv(rows, columns)
    elif not rows:
        typer.echo("Nothing yet.")
    else:
        from gateway.cli.tables import cell, table

        cells = [[cell(row, name) for name in columns] for row in rows]
        for index, name in enumerate(columns):
            if name in _SELDOM and all(line[index] == "0" for line in cells):
                for line in cells:
                    line[index] = ""
        table(title, columns, cells, _NUMBERS, spare)


def _write_csv(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Everything there is; units and notes as JSON in their one field."""
    everything = list(rows[0]) if rows else columns
    writer = csv.DictWriter(sys.stdout, everything, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        flat = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()}
        writer.writerow(flat)


def _print_call(found: dict[str, Any], as_json: bool, as_csv: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
    elif as_csv:
        _write_csv(found["attempts"], ())
    else:
        from gateway.cli.tables import record

        call = found["call"]
        if call is None:
            typer.echo("The gateway ended before this call did: its attempts are all there is.")
        else:
            record(f"Call {call['id']}", call)
        for attempt in found["attempts"]:
            record(f"Attempt {attempt['n']}", attempt)
        if not found["attempts"]:
            typer.echo("It never reached a provider: no attempts.")


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
    try:
        if unit is not None and text[:-1].isdigit():
            moment = datetime.now(UTC) - timedelta(**{unit: int(text[:-1])})
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time; 2026-11-24, 2026-11-24T10:00Z or 7d are", param_hint=option
        ) from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp())) * _NS
