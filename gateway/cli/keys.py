"""`tidegate clients` and `tidegate keys`: who may call. Asks the running gateway, else opens the database itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.records import ask_records

clients_app = typer.Typer(help="Clients: list and create.", no_args_is_help=True)
keys_app = typer.Typer(help="Keys: list, create, rotate, revoke.", no_args_is_help=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file [./gateway.toml].")]
DataOption = Annotated[Path | None, typer.Option("--data-dir", help="Data directory, instead of the configuration's.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_NS = 1_000_000_000
_DAY_S = 86_400


@clients_app.command("list")
def list_clients(config: ConfigOption = None, data_dir: DataOption = None, as_json: JsonOption = False) -> None:
    """List all clients; those of gateway.toml only while the gateway runs."""
    rows = ask_records(config, data_dir, "clients.list")
    _show(rows, as_json, "Clients", ("id", "org", "tier", "source", "created"))


@clients_app.command("create")
def create_client(
    id: Annotated[str, typer.Argument(help="Its id: up to 64 letters, digits and . _ @ -")],
    org: Annotated[str | None, typer.Option(help="The org it belongs to [its own].")] = None,
    tier: Annotated[str, typer.Option(help="A tier of gateway.toml.")] = "basic",
    model: Annotated[list[str] | None, typer.Option(help="A model it may use, repeatable [all].")] = None,
    route: Annotated[list[str] | None, typer.Option(help="A route it may use, repeatable [all].")] = None,
    worker: Annotated[list[str] | None, typer.Option(help="A worker it may use, repeatable [all].")] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a client. It can call once it has a key: `tidegate keys create ID`."""
    scope = {"models": model or None, "routes": route or None, "workers": worker or None}
    made = ask_records(config, data_dir, "clients.create", id=id, org=org, tier=tier, scope=scope)
    typer.echo(json.dumps(made) if as_json else f"client {made['id']} of org {made['org']}, tier {made['tier']}")


@keys_app.command("list")
def list_keys(
    client: Annotated[str | None, typer.Option(help="Only this client's.")] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all keys; a secret is never shown again, only its last four characters."""
    rows = ask_records(config, data_dir, "keys.list", client=client)
    _show(rows, as_json, "Keys", ("id", "client", "role", "hint", "source", "created", "expires", "revoked"))


@keys_app.command("create")
def create_key(
    client: Annotated[str, typer.Argument(help="The client it belongs to.")],
    role: Annotated[str, typer.Option(help="client, service, viewer or admin.")] = "client",
    model: Annotated[list[str] | None, typer.Option(help="A model it may use, repeatable [the client's].")] = None,
    route: Annotated[list[str] | None, typer.Option(help="A route it may use, repeatable [the client's].")] = None,
    worker: Annotated[list[str] | None, typer.Option(help="A worker it may use, repeatable [the client's].")] = None,
    days: Annotated[float | None, typer.Option(help="Days until it expires [never].", min=0)] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and show its secret, once."""
    scope = {"models": model or None, "routes": route or None, "workers": worker or None}
    expires = None if days is None else int((datetime.now(UTC).timestamp() + days * _DAY_S) * _NS)
    made = ask_records(config, data_dir, "keys.create", client=client, role=role, scope=scope, expires_wall_ns=expires)
    _show_secret(made, as_json)


@keys_app.command("rotate")
def rotate_key(
    id: Annotated[str, typer.Argument(help="The key to replace, as `tidegate keys list` names it.")],
    overlap_s: Annotated[int, typer.Option(help="Seconds for which the old one stays valid.", min=0)] = 0,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace a key by a new one with the same rights; the new secret is shown once."""
    _show_secret(ask_records(config, data_dir, "keys.rotate", id=id, overlap_s=overlap_s), as_json)


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


def _show_secret(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(made))
        return
    typer.echo(f"key {made['id']} of client {made['client']}, role {made['role']}; its secret, shown only now:")
    typer.echo(made["secret"])


def _show(rows: list[dict[str, Any]], as_json: bool, title: str, columns: tuple[str, ...]) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from gateway.cli.tables import table

    if not rows:
        typer.echo(f"{title}: none")
        return
    table(title, columns, [[_cell(row, name) for name in columns] for row in rows])


def _cell(row: dict[str, Any], name: str) -> str:
    wall_ns = row.get(f"{name}_wall_ns")
    if wall_ns is not None:
        return datetime.fromtimestamp(wall_ns / _NS, UTC).strftime("%Y-%m-%d %H:%MZ")
    return str(row.get(name, "") or "")
