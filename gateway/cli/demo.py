"""`tidegate demo`: a few real calls through a gateway of its own, and the lines that repoint a client."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import httpx2
    from rich.console import Console

#: The demo client may call this often, so that the last call shows a refusal.
CALLS_A_MINUTE = 3

#: Where `tidegate serve` listens unless it is told otherwise.
DEFAULT_ADDRESS = "http://127.0.0.1:8080"


def demo(
    address: Annotated[
        str, typer.Option(help="Where your own gateway listens; used in the lines printed.")
    ] = DEFAULT_ADDRESS,
    as_json: Annotated[bool, typer.Option("--json", help="Print what happened as JSON.")] = False,
) -> None:
    """Send a plain, a streamed, an Anthropic and a refused call through a gateway with the fake provider."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        steps, usage = runner.run(_demo())
    if as_json:
        typer.echo(json.dumps({"calls": steps, "usage": usage}))
        return
    _print(steps, usage, address.rstrip("/"))


async def _demo() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    import httpx2
    import uvicorn

    from gateway.app import Gateway
    from gateway.config import load

    key = f"tg-demo-{secrets.token_urlsafe(16)}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.toml"
        path.write_text(
            f'[server]\ndata_dir = "{folder}/data"\nlog_level = "error"\n'
            f'[clients.demo]\nquota = {{ requests = ["{CALLS_A_MINUTE}/minute"] }}\n'
            f'[[clients.demo.keys]]\nsecret = "{key}"\n'
        )
        # No environment: the demo never spends money, whatever keys are set.
        gateway = Gateway(load(path, {}, {}), {"TIDEGATE_ADMIN_KEY": key + "-admin", "TIDEGATE_CLIENT_KEY": key + "-c"})
        await gateway.open()
        server = uvicorn.Server(
            uvicorn.Config(gateway, port=0, lifespan="off", log_config=None, access_log=False, loop="none", ws="none")
        )
        serving = asyncio.ensure_future(server.serve())
        try:
            while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
                await asyncio.sleep(0.005)
            port = server.servers[0].sockets[0].getsockname()[1]
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                steps = await _calls(client, key)
            usage = await gateway.records.verbs()["usage"](by=["client", "model"])
        finally:
            server.should_exit = True
            await serving
            await gateway.aclose()
    return steps, usage


async def _calls(client: httpx2.AsyncClient, key: str) -> list[dict[str, Any]]:
    openai = {"authorization": f"Bearer {key}"}
    anthropic = {"x-api-key": key, "anthropic-version": "2023-06-01"}
    question = [{"role": "user", "content": "Why do tides come twice a day?"}]
    chat = {"model": "demo-small", "messages": question, "max_tokens": 16}
    return [
        await _plain(client, "plain chat completion", "/v1/chat/completions", openai, chat),
        await _streamed(client, "streamed chat completion", "/v1/chat/completions", openai, {**chat, "stream": True}),
        await _plain(client, "Anthropic message", "/v1/messages", anthropic, {**chat, "model": "demo-large"}),
        await _plain(client, "one call more than the quota", "/v1/chat/completions", openai, chat),
    ]


async def _plain(
    client: httpx2.AsyncClient, what: str, path: str, headers: dict[str, str], body: Any
) -> dict[str, Any]:
    began = time.perf_counter()
    answer = await client.post(path, headers=headers, json=body)
    page = answer.json()
    if "error" in page:
        said = page["error"]["message"]
    elif "choices" in page:
        said = page["choices"][0]["message"]["content"]
    else:
        said = page["content"][0]["text"]
    return _step(what, path, answer, said, began)


async def _streamed(
    client: httpx2.AsyncClient, what: str, path: str, headers: dict[str, str], body: Any
) -> dict[str, Any]:
    began = time.perf_counter()
    pieces: list[str] = []
    async with client.stream("POST", path, headers=headers, json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                pieces.append((choices[0]["delta"].get("content") or "") if choices else "")
        said = f"{''.join(pieces)} ({len(pieces)} events)"
        return _step(what, path, answer, said, began)


def _step(what: str, path: str, answer: httpx2.Response, said: str, began: float) -> dict[str, Any]:
    shown = ("x-tidegate-cost", "x-tidegate-provider", "x-ratelimit-remaining-requests", "retry-after", "x-request-id")
    return {
        "what": what,
        "path": path,
        "status": answer.status_code,
        "milliseconds": round((time.perf_counter() - began) * 1000, 1),
        "said": " ".join(said.split()),
        "headers": {name: answer.headers[name] for name in shown if name in answer.headers},
    }


def _print(steps: list[dict[str, Any]], usage: list[dict[str, Any]], address: str) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold cyan]Tidegate demo[/]: a gateway of its own, the fake provider inside, no network\n")
    for number, step in enumerate(steps, 1):
        colour = "green" if step["status"] < 400 else "yellow"
        console.print(f"[bold]{number}. {step['what']}[/]  POST {step['path']}")
        console.print(f"   [{colour}]{step['status']}[/] in {step['milliseconds']} ms  [dim]{step['said'][:110]}[/]")
        for name, value in step["headers"].items():
            console.print(f"   [dim]{name}: {value}[/]")
    console.print("\n[bold]What the ledger has[/]")
    for row in usage:
        tokens = f"{row['input_tokens']} tokens in, {row['output_tokens']} out"
        calls = "1 call" if row["calls"] == 1 else f"{row['calls']} calls"
        console.print(f"   {row['model']}  {calls}, {row['refused']} refused  {tokens}  ${row['cost_usd']}")
    _lines(console, address)


def _lines(console: Console, address: str) -> None:
    console.print("\n[bold]Your own clients[/] (start the gateway with [cyan]tidegate serve[/]; KEY is its client key)")
    console.print("\n[dim]# OpenAI SDK[/]")
    console.print(
        f'from openai import OpenAI\nclient = OpenAI(base_url="{address}/v1", api_key="KEY")',
        markup=False,
        soft_wrap=True,
    )
    console.print("\n[dim]# Anthropic SDK[/]")
    console.print(
        f'from anthropic import Anthropic\nclient = Anthropic(base_url="{address}", api_key="KEY")',
        markup=False,
        soft_wrap=True,
    )
    console.print("\n[dim]# curl[/]")
    body = '{"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}]}'
    console.print(
        f"curl {address}/v1/chat/completions -H 'Authorization: Bearer KEY' \\\n"
        f"  -H 'Content-Type: application/json' -d '{body}'",
        markup=False,
        soft_wrap=True,
    )
