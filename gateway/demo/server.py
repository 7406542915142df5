"""Knows how a fake provider is started and stopped, inside whatever event loop is running."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.demo.connection import Connection
from gateway.demo.exchange import Request
from gateway.demo.provider import Provider
from gateway.demo.settings import DemoSettings
from gateway.demo.stats import Stats
from gateway.demo.tokens import TokenCounter

BACKLOG = 4096


class DemoServer:
    """A fake provider that is running. Made by `start`; also an async context manager that stops it."""

    def __init__(self, provider: Provider, listener: asyncio.Server) -> None:
        self.provider = provider
        self._listener = listener
        host, port = listener.sockets[0].getsockname()[:2]
        self.host: str = host
        self.port: int = port

    @property
    def base_url(self) -> str:
        """Where it listens, without a path: Anthropic's base URL. OpenAI's has /v1 after it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def stats(self) -> Stats:
        """The counters, live."""
        return self.provider.stats

    @property
    def requests(self) -> list[Request]:
        """The last 64 requests, oldest first, with headers and bodies as they came."""
        return list(self.provider.recent)

    def set_plan(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Replaces the plan, as POST /fake/plan does. Raises ValueError."""
        self.provider.set_plan(rules, asyncio.get_running_loop().time())

    def reset(self) -> None:
        """Counters to zero, nothing kept, the settings' plan, as POST /fake/reset does."""
        self.provider.reset(asyncio.get_running_loop().time())

    async def stop(self) -> None:
        """Stops listening, ends every connection with RST and waits for its tasks; safe to call twice."""
        self._listener.close()
        connections = list(self.provider.connections)
        tasks = [connection.task for connection in connections if connection.task is not None]
        for connection in connections:
            connection.reset()
        await asyncio.gather(*(connection.gone for connection in connections))
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._listener.wait_closed()
        self.provider.journal.close()

    async def __aenter__(self) -> DemoServer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


async def start(settings: DemoSettings | None = None) -> DemoServer:
    """Starts a fake provider in the running loop. Raises OSError where the port is taken, ValueError for a bad plan."""
    loop = asyncio.get_running_loop()
    settings = DemoSettings() if settings is None else settings
    if settings.count == "quarter":
        tokens = TokenCounter(settings.count)
    else:
        tokens = await loop.run_in_executor(None, TokenCounter, settings.count)
    provider = Provider(settings, tokens, loop.time())
    try:
        listener = await loop.create_server(
            lambda: Connection(provider, loop), settings.host, settings.port, backlog=BACKLOG
        )
    except OSError:
        provider.journal.close()
        raise
    return DemoServer(provider, listener)
