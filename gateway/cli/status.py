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
#: On a terminal of fewer columns, what matters less is left out; of fewer lines, what stands around the figures.
WIDE, HIGH = 120, 60
#: Lines of the five levels with their title and header, and of another table's title and header, on a low terminal.
LEVELS_HIGH, TITLE_HIGH = 7, 2


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
        console.print(picture(look(), console.width))
        return
    _live(console, look, every_s)


def _live(console: Any, look: Any, every_s: float) -> None:
    from rich.live import Live

    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(picture(look(), *console.size), refresh=True)
                time.sleep(every_s)
    except KeyboardInterrupt:
        return


def picture(page: dict[str, Any], width: int = WIDE, height: int = 0) -> RenderableType:
    """All of it, as rich shows it; with a height only as many rows as have room, the busiest pools first."""
    from rich.console import Group

    wide, low = width >= WIDE, 0 < height < HIGH
    pools, providers = page["pools"], page["providers"]
    waiting = page["queue"]["waiting"][:ROWS]
    if low:
        pools = sorted(pools, key=_is_whole)
        left = height - 1 - LEVELS_HIGH - sum(TITLE_HIGH for rows in (pools, waiting, providers) if rows)
        counts = _fitting(left, [len(pools), len(waiting), len(providers)])
        pools, waiting, providers = pools[: counts[0]], waiting[: counts[1]], providers[: counts[2]]
    parts = [_pools(pools, len(page["pools"]), wide, low), _levels(page["queue"], low)]
    if waiting:
        parts.append(_waiting(waiting, page["queue"]["total"], wide, low))
    if providers:
        parts.append(_providers(providers, low))
    return Group(_head(page), *parts)


def _is_whole(row: dict[str, Any]) -> bool:
    parts = [row["shared"], row["reserved"], *row["dedicated"].values()]
    is_taken = any(part is not None and part["available"] < part["capacity"] for part in parts)
    return not (is_taken or row["waiting"] or row["closed_ms"])


def _fitting(room: int, wanted: list[int]) -> list[int]:
    """Rows of each table: one after the other gets one more, as long as there is room."""
    given = [0] * len(wanted)
    while room > 0 and given != wanted:
        for index, most in enumerate(wanted):
            if room > 0 and given[index] < most:
                given[index] += 1
                room -= 1
    return given


def _head(page: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    reasons = [f"{part}: {reason}" for part, found in page["reasons"].items() for reason in found]
    queue = page["queue"]
    state = ("; ".join(reasons), "bold red") if reasons else ("well", "bold green")
    sums = f"   {queue['executing']} executing, {queue['total']} waiting   pid {page['pid']}"
    return Text.assemble(("tidegate ", "bold"), state, sums, f"   {time.strftime('%H:%M:%S')}")


def _table(title: str, *columns: str, low: bool) -> Any:
    """Columns with a > in front stand to the right."""
    from rich import box
    from rich.table import Table

    shape, header = (None, "dim") if low else (box.SIMPLE_HEAD, "bold")
    table = Table(title=title, title_justify="left", title_style="bold", box=shape, header_style=header)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return table


def _pools(rows: list[dict[str, Any]], total: int, wide: bool, low: bool) -> RenderableType:
    title = "Pools" if len(rows) == total else f"Pools: {len(rows)} of {total}"
    columns = ["pool", "unit", "", ">shared", ">reserved", ">dedicated", ">windows left", ">waiting"]
    table = _table(title, *(columns if wide else ["pool", *columns[3:6], ">waiting"]), low=low)
    for row in rows:
        closed = f"closed {span(row['closed_ms'] / 1000)}" if row["closed_ms"] else ""
        dedicated = ", ".join(f"{client} {_level(level)}" for client, level in row["dedicated"].items())
        parts = (_level(row["shared"]), _level(row["reserved"]), _text(dedicated))
        waiting = str(row["waiting"] or "")
        if wide:
            windows = ", ".join(f"{one['remaining']:,} of {one['rate']}" for one in row["windows"])
            state = closed or _bar(row["shared"]["percentage"])
            table.add_row(_text(row["name"]), _text(row["unit"]), state, *parts, windows, waiting)
        else:
            table.add_row(_text(row["name"]), closed or parts[0], *parts[1:], waiting)
    return table  # type: ignore[no-any-return]  # rich is loaded late


def _levels(queue: dict[str, Any], low: bool) -> RenderableType:
    table = _table("Queue", "level", ">depth", ">oldest", ">starved", low=low)
    for name, level in queue["levels"].items():
        table.add_row(name, str(level["depth"]), _duration(level["oldest_ms"]), str(level["starved"] or ""))
    return table  # type: ignore[no-any-return]  # rich is loaded late


def _waiting(shown: list[dict[str, Any]], total: int, wide: bool, low: bool) -> RenderableType:
    title = f"Waiting: the first {len(shown)} of {total}"
    columns = [">place", "client", ">waited", ">left", "request"]
    table = _table(title, *columns, *(["urgency", ">priority", "for"] if wide else []), low=low)
    for view in shown:
        waits = (_duration(view["waited_ms"]), _duration(view["estimate_ms"]))
        row = [str(view["position"]), _text(view["client"]), *waits, view["id"]]
        if wide:
            urgency = view["urgency"] + (" starved" if view["starved"] else "")
            row += [urgency, str(view["priority"]), _text(view["limit"])]
        table.add_row(*row)
    return table  # type: ignore[no-any-return]  # rich is loaded late


def _providers(rows: list[dict[str, Any]], low: bool) -> RenderableType:
    table = _table("Providers", "provider", "model", "breaker", ">under way", ">latency", low=low)
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
