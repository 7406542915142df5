"""`tidegate prove`: over-admission, refusal latency and starvation of any OpenAI-compatible gateway."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

import typer


def prove(
    against: Annotated[str, typer.Option(help="The gateway's base URL, with or without /v1.")],
    key: Annotated[str, typer.Option(envvar="TIDEGATE_CLIENT_KEY", help="The key that floods and bursts.")],
    model: Annotated[str, typer.Option(help="Model of the calls, of one output token each.")],
    other_key: Annotated[
        str, typer.Option(help="Another client's key, whose calls must not starve (default: the same).")
    ] = "",
    burst: Annotated[int, typer.Option(min=1, help="Calls at the same moment.")] = 100,
    allowed: Annotated[
        int | None, typer.Option(min=0, help="How many of them the limit allows [x-ratelimit-remaining-requests].")
    ] = None,
    provider: Annotated[str, typer.Option(help="Tidegate's fake provider behind the gateway, which counts too.")] = "",
    flood: Annotated[int, typer.Option(min=1, help="Calls that one client keeps under way.")] = 50,
    seconds: Annotated[float, typer.Option(min=1, help="How long the flood lasts.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Prove limits and fairness of a gateway from the outside. It sends real calls: a real provider bills them.

    Exits with 1 where a proof failed."""
    import httpx2

    from gateway.prove.proof import Plan, prove

    plan = Plan(against, key, other_key or key, model, burst, allowed, provider, flood, seconds)
    try:
        findings = asyncio.run(prove(plan))
    except (ValueError, httpx2.HTTPError) as error:
        typer.echo(f"Nothing was proved: {error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        shown = {"against": against, "model": model, "findings": [asdict(one) for one in findings]}
        typer.echo(json.dumps(shown))
    else:
        from gateway.cli.tables import table

        rows = [[one.name, one.verdict, one.said] for one in findings]
        table(f"Proofs against {against}, model {model}", ["proof", "verdict", "finding"], rows)
    raise typer.Exit(1 if any(one.verdict == "fail" for one in findings) else 0)
