"""Health probes of providers whose breakers are open: a GET of a free path, or a connect. Never a call that costs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from gateway.clock import Clock
from gateway.providers.base import Provider
from gateway.routing.standings import Standings
from gateway.upstream.base import UpstreamError, UpstreamRequest
from gateway.upstream.origin import Origin

#: Longest time for one probe, seconds.
_PATIENCE_S = 5.0


class Prober:
    """One task a provider, from when one of its breakers opens until none is open any more."""

    def __init__(self, standings: Standings, clock: Clock) -> None:
        self._standings = standings
        self._now_ns = clock.now_ns
        self._providers: dict[str, Provider] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def configure(self, providers: Iterable[Provider]) -> None:
        """The providers as they are from now on."""
        self._providers = {provider.place: provider for provider in providers}

    def watch(self, name: str) -> None:
        """A breaker of this provider opened."""
        if name not in self._tasks and name in self._providers:
            task = asyncio.get_running_loop().create_task(self._watch(name))
            self._tasks[name] = task
            task.add_done_callback(lambda done: self._tasks.pop(name, None))

    async def aclose(self) -> None:
        """Stops all."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _watch(self, name: str) -> None:
        while True:
            every_s = self._standings.rules_of(name).breaker.probe_every_s
            await asyncio.sleep(every_s)
            breakers = self._standings.open_breakers(name)
            provider = self._providers.get(name)
            if not breakers or provider is None:
                return
            is_well = await probe(provider)
            now_ns = self._now_ns()
            for breaker in breakers:
                if is_well:
                    breaker.reachable(now_ns)
                else:
                    breaker.postpone(now_ns + round(every_s * 1.5e9))


async def probe(provider: Provider) -> bool:
    """Whether a provider can be reached and, where it has a free path, answers there without an error of its own."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            if not provider.health_path:
                await _connect(provider)
                return True
            headers = [*provider.sent_headers, (b"accept", b"application/json")]
            response = await provider.client.send(UpstreamRequest("GET", provider.health_path, headers))
            try:
                while await response.read():
                    pass
                return response.status < 500
            finally:
                await response.aclose()
    except (TimeoutError, OSError, UpstreamError):
        return False


async def _connect(provider: Provider) -> None:
    """TCP, and TLS where the provider is spoken to by it."""
    origin = Origin.parse(provider.base_url)
    _, writer = await asyncio.open_connection(origin.host, origin.port, ssl=provider.tls())
    writer.close()
