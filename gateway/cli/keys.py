"""`tidegate keys`: the credentials of clients. Asks the running gateway, else opens the database itself."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.flags import ConfigOption
from gateway.cli.records import ask_records, fail
from gateway.cli.tables import show

keys_app = typer.Typer(help="Keys: list, create, rotate, revoke.", no_args_is_help=True)

DataOption = Annotated[Path | None, typer.Option("--data-dir", help="Data directory, instead of the configuration's.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OverlapOption = Annotated[
    int, typer.Option(help="Seconds for which what is replaced stays valid.", min=0, max=365 * 86_400)
]

_NS = 1_000_000_000
_DAY_S = 86_400
_MOST_DAYS = 36_500


@keys_app.command("list")
def list_keys(
    client: Annotated[str | None, typer.Option(help="Only this client's.")] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all keys; a secret is never shown again, only its last four characters."""
    rows = ask_records(config, data_dir, "keys.list", client=client)
    show(rows, as_json, "Keys", ("id", "client", "role", "hint", "source", "created", "expires", "revoked"))


@keys_app.command("create")
def create_key(
    client: Annotated[str, typer.Argument(help="The client it belongs to.")],
    role: Annotated[str, typer.Option(help="client, service, viewer or admin.")] = "client",
    model: Annotated[
        list[str] | None, typer.Option(help="A model it may use, repeatable (default: the client's).")
    ] = None,
    route: Annotated[
        list[str] | None, typer.Option(help="A route it may use, repeatable (default: the client's).")
    ] = None,
    worker: Annotated[
        list[str] | None, typer.Option(help="A worker it may use, repeatable (default: the client's).")
    ] = None,
    days: Annotated[
        float | None, typer.Option(help="Days until it expires; parts of one are allowed (default: never).")
    ] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and show its secret, once."""
    scope = {"models": model or None, "routes": route or None, "workers": worker or None}
    expires = None if days is None else _in_days(days)
    made = ask_records(config, data_dir, "keys.create", client=client, role=role, scope=scope, expires_wall_ns=expires)
    show_secrets([made], as_json)


@keys_app.command("rotate")
def rotate_key(
    id: Annotated[str, typer.Argument(help="The key to replace, as `tidegate keys list` names it.")],
    overlap_s: OverlapOption = 0,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace a key by a new one with the same rights; the new secret is shown once."""
    show_secrets([ask_records(config, data_dir, "keys.rotate", id=id, overlap_s=overlap_s)], as_json)


@keys_app.command("revoke")
def revoke_key(
    id: Annotated[str, typer.Argument(help="The key to end, as `tidegate keys list` names it.")],
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key, now."""
    done = ask_records(config, data_dir, "keys.revoke", id=id)
    typer.echo(json.dumps(done) if as_json else f"key {id} is revoked")


@keys_app.command("forget-pepper")
def forget_pepper(
    config: ConfigOption = None,
    data_dir: DataOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """End every key of the database, after the pepper that they were made with is lost. The gateway must be stopped.

    The next start takes the pepper that it finds, or makes a new one.
    """
    from gateway.cli.flags import loaded_or_exit
    from gateway.clock import Clock
    from gateway.records.database import RecordsError
    from gateway.records.pepper import forget_pepper as forget

    where = Path(loaded_or_exit(config).settings.server.data_dir) if data_dir is None else data_dir
    if not (where / "tidegate.db").exists():
        fail(f"there are no records in {where}: no gateway has run there yet (`tidegate serve`)")
    if not yes:
        typer.confirm(f"All keys in {where} end. Go on?", abort=True)
    try:
        ended = forget(where, Clock().wall_ns())
    except RecordsError as error:
        fail(str(error))
    typer.echo(
        f"{ended} {'key is' if ended == 1 else 'keys are'} revoked. `tidegate keys create CLIENT` makes new ones."
    )


def _in_days(days: float) -> int:
    """Nanoseconds since the epoch."""
    if not math.isfinite(days) or not 0 < days <= _MOST_DAYS:
        raise typer.BadParameter(f"more than 0 and at most {_MOST_DAYS:,} days, not {days:g}", param_hint="--days")
    return int((datetime.now(UTC).timestamp() + days * _DAY_S) * _NS)


def show_secrets(made: list[dict[str, Any]], as_json: bool, *, many: bool = False) -> None:
    """New keys with their secrets, the only time that these are shown."""
    if as_json:
        typer.echo(json.dumps(made if many else made[0]))
        return
    for one in made:
        typer.echo(f"key {one['id']} of client {one['client']}, role {one['role']}; its secret, shown only now:")
        typer.echo(one["secret"])
        show_warnings(one)


def show_warnings(made: dict[str, Any]) -> None:
    """On standard error, so that what is printed can be piped."""
    for warning in made.get("warnings", ()):
        typer.echo(f"warning: {warning}", err=True)
