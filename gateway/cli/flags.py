"""Flags that count over the file, the same wherever a command reads the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gateway.config import Loaded

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file [./gateway.toml].")]
ListenOption = Annotated[str | None, typer.Option("--listen", help="Address and port, such as 127.0.0.1:8080.")]
DataDirOption = Annotated[str | None, typer.Option("--data-dir", help="Database, journal, pepper and first keys.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting, repeatable: --set records.time_zone=UTC.")
]


def flags(set_: list[str] | None, **given: str | None) -> dict[str, str]:
    """Dotted keys to values; `given` are keys of [server]. Ends the command with 2 for a --set without a value."""
    found = {f"server.{name}": value for name, value in given.items() if value is not None}
    for pair in set_ or []:
        key, separator, value = pair.partition("=")
        if not separator:
            typer.echo(f"--set takes KEY=VALUE, not {pair!r}", err=True)
            raise typer.Exit(2)
        found[key] = value
    return found


def loaded_or_exit(config: Path | None, as_json: bool = False, given: dict[str, str] | None = None) -> Loaded:
    """The configuration; where it is not right, its problems are printed and the command ends with 1."""
    from gateway.config import ConfigError, load, show_problems

    try:
        return load(config, given)
    except ConfigError as error:
        show_problems(error, as_json)
        raise typer.Exit(1) from None
