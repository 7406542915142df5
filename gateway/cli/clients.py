"""`tidegate clients`: who may call. Asks the running gateway, else opens the database itself."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from gateway.cli.flags import ConfigOption
from gateway.cli.keys import DataOption, JsonOption, OverlapOption, show_secrets, show_warnings
from gateway.cli.records import ask_records
from gateway.cli.tables import show

clients_app = typer.Typer(help="Clients: list, create, edit, rotate, revoke, remove.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(help="The client, as `tidegate clients list` names it.")]
ModelOption = Annotated[list[str] | None, typer.Option("--model", help="A model it may use, repeatable; '*': all.")]
RouteOption = Annotated[list[str] | None, typer.Option("--route", help="A route it may use, repeatable; '*': all.")]
WorkerOption = Annotated[list[str] | None, typer.Option("--worker", help="A worker it may use, repeatable; '*': all.")]
RequestsOption = Annotated[
    list[str] | None,
    typer.Option("--requests", help="Such as 600/minute, repeatable; none: no limit; default: its tier's."),
]
TokensOption = Annotated[list[str] | None, typer.Option("--tokens", help="Likewise, such as 100000/minute.")]
ConcurrentOption = Annotated[
    str | None, typer.Option("--concurrent", help="Calls at the same time; default: its tier's.")
]


@clients_app.command("list")
def list_clients(config: ConfigOption = None, data_dir: DataOption = None, as_json: JsonOption = False) -> None:
    """List all clients, those of the database and those of gateway.toml."""
    rows = ask_records(config, data_dir, "clients.list")
    show(rows, as_json, "Clients", ("id", "org", "tier", "source", "created"))


@clients_app.command("create")
def create_client(
    id: Annotated[str, typer.Argument(help="Its id: up to 64 letters, digits and . _ @ -")],
    org: Annotated[str | None, typer.Option(help="The org it belongs to (default: its own).")] = None,
    tier: Annotated[str, typer.Option(help="A tier of gateway.toml.")] = "basic",
    model: ModelOption = None,
    route: RouteOption = None,
    worker: WorkerOption = None,
    requests: RequestsOption = None,
    tokens: TokensOption = None,
    concurrent: ConcurrentOption = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a client. It can call once it has a key: `tidegate keys create ID`."""
    scope = {"models": _names(model), "routes": _names(route), "workers": _names(worker)}
    quota = {"requests": _rates(requests), "tokens": _rates(tokens), "concurrent": _count(concurrent)}
    made = ask_records(config, data_dir, "clients.create", id=id, org=org, tier=tier, scope=scope, quota=quota)
    typer.echo(json.dumps(made) if as_json else f"client {made['id']} of org {made['org']}, tier {made['tier']}")
    if not as_json:
        show_warnings(made)


@clients_app.command("edit")
def edit_client(
    id: IdArgument,
    tier: Annotated[str | None, typer.Option(help="A tier of gateway.toml.")] = None,
    model: ModelOption = None,
    route: RouteOption = None,
    worker: WorkerOption = None,
    requests: RequestsOption = None,
    tokens: TokensOption = None,
    concurrent: ConcurrentOption = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a client; what is not named stays. 'default' for a rate or --concurrent goes back to its tier's."""
    changes: dict[str, Any] = {} if tier is None else {"tier": tier}
    for name, given in (("models", model), ("routes", route), ("workers", worker)):
        changes |= {name: _names(given)} if given else {}
    for name, rates in (("requests", requests), ("tokens", tokens)):
        changes |= {name: _rates(rates)} if rates else {}
    changes |= {} if concurrent is None else {"concurrent": _count(concurrent)}
    if not changes:
        raise typer.BadParameter("say what to change: --tier, --model, --route, --worker, --requests, ...")
    done = ask_records(config, data_dir, "clients.edit", id=id, changes=changes)
    typer.echo(json.dumps(done) if as_json else f"client {id} is changed; it holds from the next call on")
    if not as_json:
        show_warnings(done)


@clients_app.command("rotate")
def rotate_client(
    id: IdArgument,
    overlap_s: OverlapOption = 0,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace each of its keys by a new one with the same rights; the new secrets are shown once."""
    show_secrets(ask_records(config, data_dir, "clients.rotate", id=id, overlap_s=overlap_s), as_json, many=True)


@clients_app.command("revoke")
def revoke_client(
    id: IdArgument, config: ConfigOption = None, data_dir: DataOption = None, as_json: JsonOption = False
) -> None:
    """End all its keys, now. Ends with 1 where gateway.toml gives it more: only that file can end those."""
    done = ask_records(config, data_dir, "clients.revoke", id=id)
    typer.echo(json.dumps(done) if as_json else _ended(done, f" of client {id}"))
    if done["in_file"]:
        more = ", ".join(done["in_file"])
        typer.echo(f"still valid, for gateway.toml has it: {more}; remove it there, then `tidegate reload`", err=True)
        raise typer.Exit(1)


@clients_app.command("remove")
def remove_client(
    id: IdArgument,
    keep_keys: Annotated[
        bool, typer.Option("--keep-keys", help="Its keys become those of the client of that id in gateway.toml.")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a client from the database and end its keys. What it did stays in the ledger."""
    done = ask_records(config, data_dir, "clients.remove", id=id, keep_keys=keep_keys)
    typer.echo(json.dumps(done) if as_json else f"client {id} is removed; {_ended(done)}")


def _names(given: list[str] | None) -> list[str] | None:
    return None if not given or "*" in given else given


def _rates(given: list[str] | None) -> list[str] | None:
    if not given or given == ["default"]:
        return None
    return [] if given == ["none"] else given


def _count(given: str | None) -> int | None:
    if given is None or given == "default":
        return None
    if not given.isascii() or not given.isdigit():
        raise typer.BadParameter(f"a number, or 'default', not {given!r}", param_hint="--concurrent")
    return int(given)


def _ended(done: dict[str, Any], whose: str = "") -> str:
    count = len(done["revoked"])
    return f"1 key{whose} is revoked" if count == 1 else f"{count} keys{whose} are revoked"
