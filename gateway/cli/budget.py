"""`tidegate budget`: how budgets stand, top-ups, overrides and their history, asked of the running gateway."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.records import ask_running
from gateway.cli.tables import table

_ABSENT = "no gateway runs on {data_dir}; budgets are asked of a running one (`tidegate serve`)"

app = typer.Typer(help="Budgets: how they stand, top-ups, overrides, history.", no_args_is_help=True)

_NS = 1_000_000_000
_OF = typer.Argument(help="Whose budget: client:acme, org:sales or key:KEY_ID.", metavar="SCOPE:ID")
Config = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file [./gateway.toml].")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Data directory (default: the configuration's).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, money as decimal strings.")]
Span = Annotated[str, typer.Option("--span", help="day or month.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; kept in the history.")]


@app.command()
def show(
    of: Annotated[str, _OF] = "", config: Config = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Print how budgets stand: the limit, what is spent or reserved, and what is left."""
    scope, subject = _named(of) if of else ("", "")
    rows = ask_running(config, data_dir, _ABSENT, "budget_show", scope=scope, subject=subject)
    _print(rows, ["scope", "subject", "period", "limit_usd", "used_usd", "left_usd", "hard"], "Budgets", as_json)


@app.command("top-up")
def top_up(
    of: Annotated[str, _OF],
    usd: Annotated[str, typer.Argument(help="How many dollars more.")],
    reason: Reason,
    span: Span = "month",
    period: Annotated[str, typer.Option(help="Which one: 2026-11 or 2026-11-24 (default: the current one).")] = "",
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Allow more for one day or month."""
    scope, subject = _named(of)
    done = ask_running(
        config, data_dir, _ABSENT, "budget_top_up", scope=scope, subject=subject, span=span, usd=usd, reason=reason,
        actor=_actor(), period=period,
    )  # fmt: skip
    _done(done, as_json, at_once=not period)


@app.command()
def override(
    of: Annotated[str, _OF],
    usd: Annotated[str, typer.Argument(help="Dollars instead of what is configured; 'none': no bound.")],
    reason: Reason,
    span: Span = "month",
    until: Annotated[
        str | None,
        typer.Option(help="Until when: 2026-12-01, 2026-11-24T18:00Z, or 6h, 7d from now (default: the next change)."),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Set another figure, for a time or until the next change. 'configured' goes back to the configuration's."""
    scope, subject = _named(of)
    common = {"scope": scope, "subject": subject, "span": span, "reason": reason, "actor": _actor()}
    if usd == "configured":
        done = ask_running(config, data_dir, _ABSENT, "budget_restore", **common)
    else:
        amount = None if usd == "none" else usd
        done = ask_running(
            config, data_dir, _ABSENT, "budget_override", **common, usd=amount, until_wall_ns=_moment(until)
        )
    _done(done, as_json)


@app.command()
def history(
    of: Annotated[str, _OF] = "", config: Config = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Print every change of budgets, who made it and why."""
    scope, subject = _named(of) if of else ("", "")
    rows = ask_running(config, data_dir, _ABSENT, "budget_history", scope=scope, subject=subject)
    if not as_json:
        rows = [{**row, "at": _time(row["at_wall_ns"]), "until": _time(row["until_wall_ns"])} for row in rows]
    shown = ["at", "scope", "subject", "span", "action", "amount_usd", "period", "until", "actor", "reason"]
    _print(rows, shown, "Changes of budgets", as_json)


def _named(of: str) -> tuple[str, str]:
    scope, colon, subject = of.partition(":")
    if not colon or not subject or scope not in ("client", "org", "key"):
        raise typer.BadParameter("say whose budget: client:acme, org:sales or key:KEY_ID")
    return scope, subject


def _moment(text: str | None) -> int | None:
    """Nanoseconds since the epoch of a date, a time, or a length of time from now."""
    if text is None:
        return None
    lengths = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
    try:
        if text[-1:] in lengths and text[:-1].isdigit():
            at = datetime.now(UTC) + int(text[:-1]) * lengths[text[-1]]
        else:
            at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not a time such as 2026-12-01, 2026-11-24T18:00Z, 6h or 7d") from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _time(wall_ns: int | None) -> str:
    return "" if wall_ns is None else datetime.fromtimestamp(wall_ns // _NS, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _actor() -> str:
    """The user of this machine who asks."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _print(rows: list[dict[str, Any]], columns: list[str], title: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo("Nothing yet.")
        return
    cells = [["" if row[name] is None else str(row[name]) for name in columns] for row in rows]
    table(title, columns, cells, numbers={name for name in columns if name.endswith("_usd")})


def _done(one: dict[str, Any], as_json: bool, *, at_once: bool = True) -> None:
    if as_json:
        typer.echo(json.dumps(one))
        return
    what = {
        "top_up": f"{one['amount_usd']} USD more for {one['period']}",
        "override": f"{one['amount_usd']} USD a {one['span']}" if one["amount_usd"] else f"no bound a {one['span']}",
        "restore": f"the configured figure a {one['span']}",
    }[one["action"]]
    until = f" until {_time(one['until_wall_ns'])}" if one["until_wall_ns"] else ""
    when = " It holds from the next call on." if at_once else ""
    typer.echo(f"{one['scope']} {one['subject']}: {what}{until}.{when}")
