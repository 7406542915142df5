"""`tidegate status`: pools, queue and providers of the running gateway, live on the terminal."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.ratelimit import span

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Waiting calls that are shown.
ROWS = 15


def status(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file [./gateway.toml].")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Data directory of the running gateway.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it once, as JSON.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print it once.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Show pools, queue and providers of the running gateway; live until Ctrl-C on a terminal."""
    import sys

    from gateway.config import ConfigError, load, show_problems
    from gateway.control.socket import AdminError, NotRunningError, ask

    try:
        settings = load(config, {} if data_dir is None else {"server.data_dir": data_dir}, patient=True).settings
    except ConfigError as error:
        show_problems(error)
        raise typer.Exit(1) from None
    folder = Path(settings.server.data_dir)

    def look() -> dict[str, Any]:
        try:
            found: dict[str, Any] = asyncio.run(ask(folder, "status"))
        except NotRunningError:
            typer.echo("No gateway is running on this data directory.", err=True)
            raise typer.Exit(1) from None
        except AdminError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None
        return found

    if as_json:
        typer.echo(json.dumps(look()))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    if once or not sys.stdout.isatty():
        console.print(picture(look()))
        return
    _live(console, look, every_s)


def _live(console: Any, look: Any, every_s: float) -> None:
    from rich.live import Live

    try:
        with Live(picture(look()), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(every_s)
                live.update(picture(look()), refresh=True)
    except KeyboardInterrupt:
        return


def picture(page: dict[str, Any]) -> RenderableType:
    """All of it, as rich shows it."""
    from rich.console import Group

    parts = [_pools(page["pools"]), _levels(page["queue"])]
    if page["queue"]["waiting"]:
        parts.append(_waiting(page["queue"]))
    if page["providers"]:
        parts.append(_providers(page["providers"]))
    return Group(_head(page), *parts)


def _head(page: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    reasons = [f"{part}: {reason}" for part, found in page["reasons"].items() for reason in found]
    queue = page["queue"]
    state = ("; ".join(reasons), "bold red") if reasons else ("well", "bold green")
    sums = f"   {queue['executing']} executing, {queue['total']} waiting   pid {page['pid']}"
    return Text.assemble(("tidegate ", "bold"), state, sums, f"   {time.strftime('%H:%M:%S')}")


def _table(title: str, *columns: str) -> Any:
    """Columns with a > in front stand to the right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return table


def _pools(rows: list[dict[str, Any]]) -> RenderableType:
    table = _table("Pools", "pool", "unit", "", ">shared", ">reserved", ">dedicated", ">windows left", ">waiting")
    for row in rows:
        windows = ", ".join(f"{one['remaining']:,} of {one['rate']}" for one in row["windows"])
        dedicated = ", ".join(f"{client} {_level(level)}" for client, level in row["dedicated"].items())
        table.add_row(
            _text(row["name"]),
            _text(row["unit"]),
            f"closed {span(row['closed_ms'] / 1000)}" if row["closed_ms"] else _bar(row["shared"]["percentage"]),
            _level(row["shared"]),
            _level(row["reserved"]),
            _text(dedicated),
            windows,
            str(row["waiting"] or ""),
        )
    return table  # type: ignore[no-any-return]  # rich is loaded late


def _levels(queue: dict[str, Any]) -> RenderableType:
    table = _table("Queue", "level", ">depth", ">oldest", ">starved")
    for name, level in queue["levels"].items():
        table.add_row(name, str(level["depth"]), _duration(level["oldest_ms"]), str(level["starved"] or ""))
    return table  # type: ignore[no-any-return]  # rich is loaded late


def _waiting(queue: dict[str, Any]) -> RenderableType:
    shown = queue["waiting"][:ROWS]
    title = f"Waiting: the first {len(shown)} of {queue['total']}"
    table = _table(title, ">place", "client", "urgency", ">priority", ">waited", ">left", "request", "for")
    for view in shown:
        table.add_row(
            str(view["position"]),
            _text(view["client"]),
            view["urgency"] + (" starved" if view["starved"] else ""),
            str(view["priority"]),
            _duration(view["waited_ms"]),
            _duration(view["estimate_ms"]),
            view["id"],
            _text(view["limit"]),
        )
    return table  # type: ignore[no-any-return]  # rich is loaded late


def _providers(rows: list[dict[str, Any]]) -> RenderableType:
    table = _table("Providers", "provider", "model", "breaker", ">under way", ">latency")
    for row in rows:
        latency = f"{row['latency_ms']:.0f} ms" if row.get("latency_ms") else ""
        table.add_row(
            _text(row["provider"]),
            _text(row["model"] or "(all)"),
            row["state"],
            str(row.get("outstanding", "")),
            latency,
        )
    return table  # type: ignore[no-any-return]  # rich is loaded late


def _text(words: str) -> Any:
    from rich.text import Text

    return Text(words)


def _level(level: dict[str, Any] | None) -> str:
    return "" if level is None else f"{level['available']:,}/{level['capacity']:,}"


def _bar(percent: int) -> Any:
    from rich.text import Text

    full = max(0, min(10, percent // 10))
    return Text("█" * full + "░" * (10 - full), "green" if percent >= 50 else "yellow" if percent >= 10 else "red")


def _duration(ms: int) -> str:
    return "" if not ms else f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"
