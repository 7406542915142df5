"""`tidegate reload`: has the running gateway read its configuration anew."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from gateway.cli.flags import ConfigOption


def reload(
    config: ConfigOption = None,
    data_dir: Annotated[
        str | None,
        typer.Option("--data-dir", help="Data directory of the running gateway (default: the configuration's)."),
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for its answer.")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Reload the configuration. An invalid file leaves the old one in force, and says so.

    The gateway reads the file that it was started with, in its own environment; this command needs the file only to
    find the data directory.
    """
    from gateway.config import ConfigError, load
    from gateway.control.socket import AdminError, NotRunningError, ask_within

    try:
        where = Path(load(config, patient=True).settings.server.data_dir if data_dir is None else data_dir)
    except ConfigError as error:
        _refused(str(error), error.as_json(), as_json)
    try:
        result = asyncio.run(ask_within(timeout_s, where, "reload"))
    except NotRunningError:
        _failed(f"No gateway is running on {where}.", as_json)
    except AdminError as error:
        if not error.problems:
            _failed(f"Reload failed: {error}", as_json)
        _refused(str(error), error.problems, as_json)
    if as_json:
        typer.echo(json.dumps({"ok": True, **result}))
        return
    changed, restart = result["changed"], result["needs_restart"]
    typer.echo(f"Reloaded: {', '.join(changed)}" if changed else "Reloaded: nothing changed.")
    if restart:
        typer.echo(f"Only a restart changes: {', '.join(restart)}")


def _refused(message: str, problems: Any, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"ok": False, "error": message, "problems": list(problems)}))
    else:
        typer.echo(f"{message}\n\nReload refused: the configuration in force stays as it was.", err=True)
    raise typer.Exit(1)


def _failed(message: str, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"ok": False, "error": message, "problems": []}))
    else:
        typer.echo(message, err=True)
    raise typer.Exit(1)
