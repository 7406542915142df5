"""`tidegate cache`: forgets answers that the running gateway would give again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.records import ask_running

_ABSENT = "no gateway runs on {data_dir}, and answers are kept in its memory only: there is nothing to forget"

app = typer.Typer(help="The cache: forget answers.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `purge` a command of its own."""


@app.command()
def purge(
    client: Annotated[str, typer.Option(help="Only answers to this client.")] = "",
    org: Annotated[str, typer.Option(help="Only answers to this org.")] = "",
    model: Annotated[str, typer.Option(help="Only answers of this model (its public name).")] = "",
    key: Annotated[str, typer.Option(help="Only the answer with this x-tidegate-cache-key.")] = "",
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file [./gateway.toml].")] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Data directory (default: the configuration's).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Forget answers: those of a client, org, model or key, or all of them. The next such call goes upstream."""
    done = ask_running(config, data_dir, _ABSENT, "cache_purge", client=client, org=org, model=model, key=key)
    typer.echo(json.dumps(done) if as_json else f"{done['purged']:,} answers forgotten.")
