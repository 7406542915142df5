"""How commands reach the records: through the gateway that owns the data directory, or by opening it themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NoReturn

import typer


def fail(message: str) -> NoReturn:
    """Ends the command with 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


def ask_records(config: Path | None, data_dir: Path | None, verb: str, **args: Any) -> Any:
    """The verb's result. Exits with 1 and a sentence when it is refused."""
    return asyncio.run(_ask(_data_dir(config, data_dir), verb, args))


def _data_dir(config: Path | None, data_dir: Path | None) -> Path:
    if data_dir is not None:
        return data_dir
    from gateway.config import ConfigError, load, show_problems

    try:
        return Path(load(config).settings.server.data_dir)
    except ConfigError as error:
        show_problems(error)
        raise typer.Exit(1) from None


async def _ask(data_dir: Path, verb: str, args: dict[str, Any]) -> Any:
    from gateway.control.socket import AdminError, NotRunningError, ask

    try:
        return await ask(data_dir, verb, **args)
    except AdminError as error:
        fail(str(error))
    except NotRunningError:
        pass
    if not (data_dir / "tidegate.db").exists():
        fail(f"there are no records in {data_dir}: no gateway has run there yet (`tidegate serve`)")
    return await _open_and_do(data_dir, verb, args)


async def _open_and_do(data_dir: Path, verb: str, args: dict[str, Any]) -> Any:
    from gateway.records.store import Records, RecordsError

    try:
        records = await Records.open(data_dir)
    except RecordsError as error:
        fail(str(error))
    try:
        return await records.verbs()[verb](**args)
    except (RecordsError, ValueError) as error:
        fail(str(error))
    finally:
        await records.aclose()
