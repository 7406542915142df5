"""`tidegate advise`: what could be saved, computed from the ledger, with the lines that would do it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.records import ask_running

_ABSENT = "no gateway runs on {data_dir}; advice needs the prices and models of a running one (`tidegate serve`)"


def advise(
    client: Annotated[str, typer.Option(help="Replay only this client's calls [all].")] = "",
    days: Annotated[int, typer.Option(help="How far back.", min=1, max=90)] = 7,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file [./gateway.toml].")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Data directory [the configuration's].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, money as decimal strings.")] = False,
) -> None:
    """Print what the last days would have cost under other rules, and the lines of gateway.toml that say so."""
    said = ask_running(config, data_dir, _ABSENT, "advise", client=client, days=days)
    if as_json:
        typer.echo(json.dumps(said))
        return
    typer.echo(f"{said['calls']:,} calls from {said['since']} to {said['until']} cost {said['cost_usd']} USD.")
    if not said["recommendations"]:
        typer.echo("Nothing to recommend.")
        return
    typer.echo(f"They would have cost {said['saving_usd']} USD less with all of this, one on top of the other:")
    for number, one in enumerate(said["recommendations"], 1):
        typer.echo(f"\n{number}. {one['what']} Saves {one['saving_usd']} USD ({one['calls']:,} calls).")
        typer.echo(f"   Assumes that {one['basis']['assumes']}.")
        typer.echo("\n".join(f"   {line}" for line in one["toml"].splitlines()))
    typer.echo("\nAll of it, for gateway.toml (keys join those that stand there):\n")
    typer.echo(said["toml"], nl=False)
