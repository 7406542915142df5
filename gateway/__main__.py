"""The command line: `tidegate serve`, `check`, `keys`, `usage`, ... Each command loads only what it needs."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys

import typer

#: Command or group, the module that has it, and its name there. Loaded when it is the one asked for, or for the help.
COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("gateway.cli.serve", "serve"),
    "demo": ("gateway.cli.demo", "demo"),
    "init": ("gateway.cli.init", "init"),
    "check": ("gateway.cli.config", "check"),
    "config": ("gateway.cli.config", "config_app"),
    "doctor": ("gateway.cli.doctor", "doctor"),
    "reload": ("gateway.cli.reload", "reload"),
    "clients": ("gateway.cli.clients", "clients_app"),
    "status": ("gateway.cli.status", "status"),
    "prove": ("gateway.cli.prove", "prove"),
    "keys": ("gateway.cli.keys", "keys_app"),
    "usage": ("gateway.cli.usage", "usage"),
    "cache": ("gateway.cli.cache", "app"),
    "budget": ("gateway.cli.budget", "app"),
    "advise": ("gateway.cli.advise", "advise"),
}


def build(wanted: str = "") -> typer.Typer:
    """The application with one command, or with all of them where the wanted one is not known."""
    app = typer.Typer(
        name="tidegate",
        help="The gate between your services and AI providers.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    names = [wanted] if wanted in COMMANDS else list(COMMANDS)
    for name in names:
        module, attribute = COMMANDS[name]
        command = getattr(importlib.import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    app.callback()(_root)
    return app


def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    """The gate between your services and AI providers: quotas, fair waiting, exact metering."""
    if version:
        from gateway import __version__

        typer.echo(f"tidegate {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the `tidegate` command."""
    _see_own_policies()
    wanted = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    if sys.argv[1:] == ["--version"]:
        _root_version()
        return
    build(wanted)()


def _see_own_policies() -> None:
    """Modules of the working directory are found, whichever way the command is started; behind all others, so that
    none of them is hidden."""
    with contextlib.suppress(OSError):  # a directory that is gone
        folder = os.getcwd()
        if folder not in sys.path and "" not in sys.path:
            sys.path.append(folder)


def _root_version() -> None:
    from gateway import __version__

    print(f"tidegate {__version__}")


if __name__ == "__main__":
    main()
