"""`tidegate reload`: has the running gateway read its configuration anew."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer


def reload(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file [./gateway.toml].")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Data directory of the running gateway.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Reload the configuration. An invalid file leaves the old one in force, and says so."""
    from gateway.config import ConfigError, load, show_problems
    from gateway.control.socket import AdminError, NotRunningError, ask

    try:
        settings = load(config, {} if data_dir is None else {"server.data_dir": data_dir}).settings
    except ConfigError as error:
        show_problems(error)
        typer.echo("The configuration in force stays as it was.", err=True)
        raise typer.Exit(1) from None
    try:
        result = asyncio.run(ask(Path(settings.server.data_dir), "reload"))
    except NotRunningError:
        typer.echo("No gateway is running on this data directory.", err=True)
        raise typer.Exit(1) from None
    except AdminError as error:
        typer.echo(f"Reload refused; the configuration in force stays as it was.\n{error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(result))
        return
    changed, restart = result["changed"], result["needs_restart"]
    typer.echo(f"Reloaded: {', '.join(changed)}" if changed else "Reloaded: nothing changed.")
    if restart:
        typer.echo(f"Only a restart changes: {', '.join(restart)}")
