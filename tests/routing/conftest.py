"""A gateway and fake providers, all in this process over real sockets, so that nothing they leave stays unseen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
import uvicorn
import uvloop

from gateway.app import Gateway
from gateway.clock import ManualClock
from gateway.config import load
from gateway.demo import DemoServer, DemoSettings
from gateway.demo import start as start_provider
from gateway.events import Event, Events
from gateway.metrics import Metrics
from gateway.routing.routing import Routing
from gateway.routing.rules import Rules
from gateway.server.limits import WireLimits
from gateway.server.protocol import protocol_class

KEY = "tg-routing-secret-key"
CLIENT = """
[clients.acme]
quota = {{ requests = ["1000000/minute"], concurrent = 1000 }}
budget = {{ month_usd = 1000 }}
[[clients.acme.keys]]
secret = "{key}"
"""


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


class Stand:
    """One gateway; `client` talks to it. Its providers are `fakes`, in the order in which they were asked for."""

    def __init__(self, folder: Path, config: str, fakes: list[DemoServer]) -> None:
        self.fakes = fakes
        self.folder = folder
        path = folder / "gateway.toml"
        path.write_text(config)
        loaded = load(path, {"server.data_dir": str(folder / "data"), "server.log_level": "error"}, env={})
        self.gateway = Gateway(loaded, env={})
        self.events: list[Event] = []
        self.gateway.events.subscribe(self.events.append)

    async def open(self) -> None:
        await self.gateway.open()
        config = uvicorn.Config(
            self.gateway, http=protocol_class(WireLimits()), lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, ws="none",
        )  # fmt: skip
        config.load()
        self._state = uvicorn.server.ServerState()
        make = lambda: config.http_protocol_class(config=config, server_state=self._state, app_state={})  # noqa: E731
        self._listener = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, backlog=2048)
        self.base_url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        limits = httpx2.Limits(max_connections=400, max_keepalive_connections=400)
        self.client = httpx2.AsyncClient(
            base_url=self.base_url, headers={"authorization": f"Bearer {KEY}"}, timeout=30, limits=limits,
            trust_env=False,
        )  # fmt: skip

    async def chat(self, fake: str = "", model: str = "m", **more: Any) -> httpx2.Response:
        """One chat completion; `fake` is the fault, `headers` and body members may be given."""
        headers = {**({"x-fake": fake} if fake else {}), **more.pop("headers", {})}
        body = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}], **more}
        return await self.client.post("/v1/chat/completions", json=body, headers=headers)

    async def message(self, fake: str = "", model: str = "m", **more: Any) -> httpx2.Response:
        """The same in Anthropic's dialect."""
        headers = {**({"x-fake": fake} if fake else {}), **more.pop("headers", {})}
        body = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}], **more}
        return await self.client.post("/v1/messages", json=body, headers=headers)

    async def rows(self) -> dict[str, Any]:
        """Calls of the ledger by id."""
        await self.gateway.records.ledger.flush()
        return {row.id: row for row in (await self.gateway.records.queries.calls(limit=100_000)).rows}

    async def attempts(self, call_id: str) -> list[Any]:
        """Attempts of a call, in order."""
        await self.gateway.records.ledger.flush()
        return await self.gateway.records.queries.attempts(call_id)

    def named(self, event: str) -> list[dict[str, Any]]:
        return [one.fields for one in self.events if one.name == event]

    async def settled(self) -> None:
        """Waits until nothing is under way, then finds nothing left: no call, attempt, hold or connection in use."""
        gateway = self.gateway
        async with asyncio.timeout(10):
            while gateway._live.calls or gateway.records.ledger.open:
                await asyncio.sleep(0.005)
            while any(client.stats().in_use or client.stats().connecting for _, client in gateway._clients.values()):
                await asyncio.sleep(0.005)
        assert all(client.stats().waiting == 0 for _, client in gateway._clients.values())
        for row in gateway.routing.snapshot():
            assert row.get("outstanding", 0) == 0, row
        for place in gateway.routing.standings._places.values():
            for standing in (place, *place.standings.values()):
                assert standing.breaker.prober is None, (place.name, standing)

    async def aclose(self) -> None:
        await self.client.aclose()
        self._listener.close()
        try:
            for connection in list(self._state.connections):
                connection.shutdown()
            async with asyncio.timeout(10):
                while self._state.connections or self._state.tasks:
                    await asyncio.sleep(0.005)
            await self.settled()
        finally:
            await self.gateway.aclose()


Make = Callable[..., Awaitable[Stand]]


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes a gateway in front of `providers` fake ones (f0, f1, ...; `a0` speaks Anthropic), `config` besides. Model m
    is served by all of them in order. At the end nothing may be left: no task, no connection, no error."""
    stands: list[Stand] = []
    every: list[DemoServer] = []
    before = asyncio.all_tasks()

    async def make(config: str = "", *, providers: int = 1, targets: str = "", **settings: Any) -> Stand:
        fakes = [await start_provider(DemoSettings(**settings)) for _ in range(providers)]
        every.extend(fakes)
        names = ", ".join(f'"f{i}/demo-small"' for i in range(providers))
        lines = [
            CLIENT.format(key=KEY),
            config,
            f"[models.m]\ntargets = [{targets or names}]\n[prices.m]\ninput = 1\noutput = 10",
        ]
        for i, fake in enumerate(fakes):
            if f"[providers.f{i}]" not in config:
                lines.append(
                    f'[providers.f{i}]\nkind = "openai"\nbase_url = "{fake.base_url}/v1"\n'
                    'pass_headers = ["x-fake", "x-nonce"]\n'
                    "timeouts = { connect_s = 2, first_byte_s = 5, idle_s = 5, total_s = 30 }"
                )
        made = Stand(tmp_path, "\n".join(lines).replace("{f0}", fakes[0].base_url if fakes else ""), fakes)
        await made.open()
        stands.append(made)
        return made

    with structlog.testing.capture_logs() as logs:
        yield make
        async with AsyncExitStack() as stack:
            for fake in every:
                stack.push_async_callback(fake.stop)
            for one in stands:
                stack.push_async_callback(one.aclose)
    assert [fake for fake in every if fake.stats.failures] == []
    assert [log for log in logs if log["log_level"] in ("error", "critical")] == []
    for _ in range(20):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            break
        await asyncio.sleep(0.01)
    assert not left, left


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def routed(clock: ManualClock) -> Callable[..., Routing]:
    """Routing by itself, on a clock that the test moves and with a chance that it knows."""
    from random import Random

    def make(rules: Rules | None = None, seed: int = 7) -> Routing:
        return Routing(clock, Events(clock), Metrics(), rules, Random(seed))

    return make


def sse(text: str) -> list[Any]:
    """The data of a stream's events, [DONE] as it is."""
    found = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in found]
