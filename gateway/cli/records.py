"""How commands reach the records: through the gateway that owns the data directory, or by opening it themselves."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from gateway.config import Loaded, Settings
    from gateway.records.store import Records

#: Verbs that can't be judged without the configuration: a client needs one of its tiers.
_NEED_CONFIGURATION = ("clients.create", "clients.edit")


def fail(message: str) -> NoReturn:
    """Ends the command with 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


def ask_records(config: Path | None, data_dir: Path | None, verb: str, **args: Any) -> Any:
    """The verb's result. Exits with 1 and a sentence when it is refused."""
    loaded = _loaded(config, data_dir, verb)
    where = Path(loaded.settings.server.data_dir) if data_dir is None and loaded is not None else data_dir
    assert where is not None
    return asyncio.run(_ask(where, loaded, verb, args))


def ask_running(config: Path | None, data_dir: Path | None, absent: str, verb: str, **args: Any) -> Any:
    """The verb's result from a gateway that has to run, for what is in its memory only; `absent` says what it means
    that none does, with {data_dir} for where it was looked for. Exits with 1 and a sentence when there is none."""
    from gateway.config import ConfigError, load, show_problems
    from gateway.control.socket import AdminError, NotRunningError, ask

    if data_dir is None:
        try:
            data_dir = Path(load(config, patient=True).settings.server.data_dir)
        except ConfigError as error:
            show_problems(error)
            raise typer.Exit(1) from None
    try:
        return asyncio.run(ask(data_dir, verb, **args))
    except NotRunningError:
        fail(absent.format(data_dir=data_dir))
    except AdminError as error:
        fail(str(error))


def _loaded(config: Path | None, data_dir: Path | None, verb: str) -> Loaded | None:
    """None where it can't be used and is not needed: a key must be revocable while the file has a mistake."""
    from gateway.config import ConfigError, load, show_problems

    try:
        return load(config, patient=True)
    except ConfigError as error:
        if config is None and data_dir is not None and verb not in _NEED_CONFIGURATION:
            return None
        show_problems(error)
        raise typer.Exit(1) from None


async def _ask(data_dir: Path, loaded: Loaded | None, verb: str, args: dict[str, Any]) -> Any:
    from gateway.control.socket import AdminError, NotRunningError, ask

    try:
        return await ask(data_dir, verb, **args)
    except AdminError as error:
        fail(str(error))
    except NotRunningError:
        pass
    if not (data_dir / "tidegate.db").exists():
        fail(f"there are no records in {data_dir}: no gateway has run there yet (`tidegate serve`)")
    return await _open_and_do(data_dir, loaded, verb, args)


async def _open_and_do(data_dir: Path, loaded: Loaded | None, verb: str, args: dict[str, Any]) -> Any:
    import structlog

    from gateway.records.store import Records, RecordsError

    # What is logged on the way is no part of the result.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    settings = None if loaded is None else loaded.settings
    try:
        records = await (Records.open(data_dir) if settings is None else _as_configured(data_dir, settings))
    except RecordsError as error:
        fail(str(error))
    try:
        if settings is not None:
            _introduce(records, settings)
        return await records.verbs()[verb](**args)
    except (RecordsError, ValueError) as error:
        fail(str(error))
    finally:
        await records.aclose()


def _as_configured(data_dir: Path, settings: Settings) -> Awaitable[Records]:
    from gateway.records.options import Options
    from gateway.records.store import Records

    configured = settings.records
    options = Options(configured.durability, configured.retention_days).with_journal(configured.journal)
    return Records.open(data_dir, options, pepper_file=configured.pepper_file)


def _introduce(records: Records, settings: Settings) -> None:
    """What a running gateway knows of its file: clients and keys that stand there, tiers, models, workers."""
    from gateway.assemble import people
    from gateway.clock import Clock
    from gateway.config import effective, scope_names
    from gateway.directory import Directory

    directory = Directory(records.pepper, Clock())
    directory.replace(*people(settings, records.pepper))
    records.attach(directory)
    tiers = {name: tier.tier(name) for name, tier in settings.tiers.items()}
    records.keys.know(tiers, scope_names(effective(settings, os.environ)))
