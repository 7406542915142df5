"""`tidegate doctor`: looks at everything a gateway depends on, asks nothing that costs, and says what to do."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.config import JsonOption
from gateway.cli.flags import ConfigOption, DataDirOption, ListenOption, SetOption, flags, loaded_or_exit

if TYPE_CHECKING:
    from gateway.diagnosis.finding import Finding

_COLORS = {"ok": "32", "info": "36", "warn": "33", "fail": "1;31"}


def doctor(
    config: ConfigOption = None,
    listen: ListenOption = None,
    data_dir: DataDirOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for each answer.")] = 5.0,
) -> None:
    """Check providers, workers, data directory, database, clock, addresses and a running gateway.

    Providers are asked for their list of models, which is free; workers are only connected to. Ends with 1 where
    something fails, with 0 otherwise, warnings included.
    """
    from gateway.diagnosis import examine

    loaded = loaded_or_exit(config, as_json, flags(set_, listen=listen, data_dir=data_dir))
    findings = asyncio.run(examine(loaded, os.environ, timeout_s))
    failed = [finding for finding in findings if finding.status == "fail"]
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _print(findings)
    if failed:
        raise typer.Exit(1)


def _print(findings: Iterable[Finding]) -> None:
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    counts = dict.fromkeys(_COLORS, 0)
    for finding in findings:
        counts[finding.status] += 1
        word = f"{finding.status:<4}"
        word = f"\x1b[{_COLORS[finding.status]}m{word}\x1b[0m" if color else word
        typer.echo(f"{word}  {finding.subject:<24} {finding.message}")
        if finding.hint:
            typer.echo(f"{'':<6}{'':<24} -> {finding.hint}")
    typer.echo(f"\n{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed")
