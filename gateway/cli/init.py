"""`tidegate init`: writes a commented gateway.toml, with the providers whose keys are in the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

#: The line of the commented file after which the detected providers are written.
_BEFORE = "# ---- Models:"


@dataclass(frozen=True, slots=True)
class Detected:
    """A provider that a key in the environment stands for, and the models that it serves."""

    name: str
    variable: str
    kind: str
    base_url: str
    models: str  # a public name or pattern


KNOWN = (
    Detected("openai", "OPENAI_API_KEY", "openai", "https://api.openai.com/v1", "*"),
    Detected("anthropic", "ANTHROPIC_API_KEY", "anthropic", "https://api.anthropic.com", "claude-*"),
    Detected(
        "gemini", "GEMINI_API_KEY", "openai", "https://generativelanguage.googleapis.com/v1beta/openai", "gemini-*"
    ),
    Detected("mistral", "MISTRAL_API_KEY", "openai", "https://api.mistral.ai/v1", "mistral-*"),
    Detected("deepseek", "DEEPSEEK_API_KEY", "openai", "https://api.deepseek.com/v1", "deepseek-*"),
)


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("gateway.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a commented configuration. Keys stay in the environment: the file only names them."""
    found = detected(os.environ)
    try:
        _write(path, text_for(found), force)
    except FileExistsError:
        typer.echo(f"{path} exists and was left as it is. --force overwrites it.", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"{path} can't be written: {error.strerror}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps({"file": str(path), "providers": {one.name: one.variable for one in found}}))
        return
    typer.echo(f"Wrote {path}.")
    for one in found:
        typer.echo(f"  {one.name}: live with {one.variable} of the environment")
    if not found:
        typer.echo("  No provider key in the environment: a fake provider answers for demo-small and demo-large.")
    where = "" if path == Path("gateway.toml") else f" --config {path}"
    typer.echo(f"Next: tidegate check{where}, tidegate serve{where}")


def detected(env: Mapping[str, str]) -> list[Detected]:
    """The known providers whose key is in the environment."""
    return [one for one in KNOWN if env.get(one.variable)]


def text_for(found: Iterable[Detected]) -> str:
    """The commented file with these providers and their models switched on."""
    from importlib.resources import files

    template = files("gateway.config").joinpath("gateway.toml").read_text(encoding="utf-8")
    blocks = [_block(one) for one in found]
    return template.replace(_BEFORE, "".join(blocks) + _BEFORE, 1) if blocks else template


def _block(one: Detected) -> str:
    return (
        f"[providers.{one.name}]                # found {one.variable} in the environment\n"
        f'kind = "{one.kind}"\n'
        f'base_url = "{one.base_url}"\n'
        f'api_key = "${{{one.variable}}}"\n\n'
        f'[models."{one.models}"]\n'
        f'targets = ["{one.name}/*"]\n\n'
    )


def _write(path: Path, text: str, force: bool) -> None:
    """Whole or not at all."""
    if not force:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
