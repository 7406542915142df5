"""The composition root: the only file that knows every part."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gateway import logs
from gateway.answers import Answer, Answers
from gateway.assemble import Clients, assemble, people
from gateway.batches import Batches
from gateway.call import Call
from gateway.calllog import CallLog
from gateway.carrier import Carrier
from gateway.clients import BudgetRules
from gateway.clock import Clock
from gateway.closing import Closing
from gateway.compression import Compression
from gateway.conclude import Concluder
from gateway.control.budgets import BudgetDesk
from gateway.control.sight import Sight
from gateway.control.socket import AdminSocket, Verb
from gateway.directory import Directory
from gateway.door import Door
from gateway.errors import Dialect, InvalidKey
from gateway.eventlog import log_event
from gateway.events import Events
from gateway.forward import Forwarder
from gateway.holds import renew
from gateway.ids import Ids
from gateway.live import Live
from gateway.metrics import Metrics
from gateway.objects import ObjectWall
from gateway.overload import Overload
from gateway.periods import Adjustments
from gateway.pools import Pools
from gateway.prices import Prices
from gateway.providers import VOCABULARY
from gateway.proxy import Proxy
from gateway.questions import Questions
from gateway.rebuild import rebuild
from gateway.records.first import FirstKeys
from gateway.records.options import Options
from gateway.records.store import Records
from gateway.relay import Relay
from gateway.results import Results
from gateway.routing.routing import Routing
from gateway.routing.rules import Rules
from gateway.runs import Runs
from gateway.scheduler import Scheduler
from gateway.server.paths import within
from gateway.state.journal import Journal
from gateway.state.memory import MemoryStore
from gateway.state.store import Store
from gateway.targets import Target
from gateway.wishes import CLAIMS

if TYPE_CHECKING:
    from gateway.advice.adviser import Adviser
    from gateway.config import Loaded, Settings
    from gateway.demo import DemoServer
    from gateway.server.exchange import Exchange

Scope = MutableMapping[str, Any]
PAGES = frozenset((b"/", b"/livez", b"/readyz", b"/health", b"/metrics"))
#: Paths of the control API: its own, and those of the Resource Manager that it replaces.
CONTROL = (b"/control/", b"/api/resources/", b"/api/queue/")


def is_control(path: bytes) -> bool:
    """Whether a path belongs to the control API."""
    return path.startswith(CONTROL) or path == b"/status"


class Gateway:
    """One gateway: an ASGI application, and what it takes to run it. Made by `open`, ended by `aclose`."""

    store: Store
    scheduler: Scheduler
    directory: Directory
    adjustments: Adjustments
    results: Results
    answers: Answers
    batches: Batches
    prices: Prices
    pools: Pools
    time_zone: str
    orgs: dict[str, BudgetRules]

    def __init__(self, loaded: Loaded, env: Mapping[str, str] = os.environ, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.metrics = Metrics()
        self.events = Events(self.clock)
        self.events.subscribe(log_event)
        self.compression = Compression()
        self.routing = Routing(self.clock, self.events, self.metrics)
        self.loaded = loaded
        self.first_keys: FirstKeys | None = None
        self.address = ""  # where it listens, once it does
        self._refused_reload = ""
        self._reloading = asyncio.Lock()
        self._env = env
        self._clients: Clients = {}
        self._runs = Runs()
        self._demo: DemoServer | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._opened = AsyncExitStack()

    async def open(self) -> None:
        """Opens what lasts, then builds what the configuration asks for. Raises ConfigError, RecordsError."""
        from gateway.config import effective

        settings = effective(self.loaded.settings, self._env)
        self._started = settings
        self._prefix = settings.server.root_path.encode()
        server, records = settings.server, settings.records
        self.time_zone = records.time_zone
        options = Options(records.durability, records.retention_days).with_journal(records.journal)
        json = server.log_format == "json" or (server.log_format == "auto" and not sys.stdout.isatty())
        logs.configure(json, server.log_level)
        self.log = CallLog(json, enabled=server.log_level in ("debug", "info"))
        self._opened.callback(self.log.close)
        self.records = await Records.open(
            Path(server.data_dir), options, clock=self.clock, pepper_file=records.pepper_file, events=self.events
        )
        self._opened.push_async_callback(self.records.aclose)
        self.directory = Directory(self.records.pepper, self.clock)
        self.records.attach(self.directory)
        self.adjustments = Adjustments(await self.records.adjustments.load())
        self.results = Results(self.records.results, self.clock, self.metrics)
        self.answers = Answers(self.clock, self.metrics)
        self.batches = Batches()
        self.records.on_erased = self._forget
        self.store = MemoryStore(self.clock, Journal(Path(server.data_dir) / "limits.snapshot"), self.metrics)
        await self.store.start()
        self.scheduler = Scheduler(self.store, self.clock, self.metrics)
        self.scheduler.renew = self._renew
        renewing = asyncio.ensure_future(renew(self.store, self.scheduler.holding))
        self._opened.callback(renewing.cancel)
        self._opened.push_async_callback(self.store.aclose)
        self._opened.push_async_callback(self._close_demo)
        self._opened.push_async_callback(self._close_clients)
        self._opened.push_async_callback(self.routing.aclose)
        self.overload = Overload(self.directory, self.metrics, self.events)
        self.door = Door(self.overload, lambda path: path in PAGES or is_control(path), Ids(), self.clock)
        self._opened.callback(self.compression.close)
        self._wire()
        self.overload.under_way = lambda: self.calls
        self._live = await self._build(settings)
        self._route(self._live, settings)
        await self.pools.declare(self.store)
        _, entries = people(settings, self.records.pepper)
        digests = {entry.digest for entry in entries}
        self.first_keys = await self.records.keys.first_keys(taken=settings.clients, digests=digests)
        await self._people(settings)
        await rebuild(self._live.pipeline.policies, self.records.queries, self.clock)
        self.overload.start()
        self._opened.callback(self.overload.stop)
        self.socket = AdminSocket(Path(server.data_dir), self._verbs())
        await self.socket.start()
        self._opened.push_async_callback(self.socket.aclose)

    def _wire(self) -> None:
        questions = Questions(self.records.pepper, self._started.records.questions)
        concluder = Concluder(self.records.ledger, self.store, self.metrics, self.log, self.clock, questions)
        wall = ObjectWall(self.records.objects)
        closing = self._closing = Closing(wall, self.clock, concluder.conclude)
        relay = Relay(closing, concluder.decorate, self.clock, self.compression)
        forwarder = Forwarder(self.records.ledger, closing, relay, self.clock, self.routing, self.compression)
        self._ids = Ids()
        self._carrier = Carrier(
            self.records.ledger,
            concluder,
            wall,
            forwarder,
            self.clock,
            self.routing,
            self.metrics,
            self.compression,
        )
        self._proxy = Proxy(
            lambda: self._live,
            forwarder,
            concluder,
            wall,
            self.clock,
            self._ids,
            self.routing,
            self._carrier,
            self.compression,
        )
        self._pages: Callable[..., Awaitable[None]] | None = None
        self._control: Callable[..., Awaitable[None]] | None = None

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and self._prefix:  # our own protocol has taken it off already
            raw_path = within(scope.get("raw_path", b""), self._prefix)
            scope = {**scope, "raw_path": raw_path, "path": unquote(raw_path.decode("latin-1"))}
        if scope["type"] != "http":
            await self._other(scope, receive, send)
        elif scope.get("raw_path", b"") in PAGES:
            await self.pages(scope, receive, send)
        elif is_control(scope.get("raw_path", b"")):
            await self.control(scope, receive, send)
        elif not self.door.is_guarded or not await self._turned_away(scope, send):
            await self._proxy(scope, receive, send)

    async def _turned_away(self, scope: Scope, send: Any) -> bool:
        """For servers other than our own, which asks the door itself."""
        answer = self.door.answer(scope.get("raw_path", b""), dict(scope["headers"]))
        if answer is None:
            return False
        await send({"type": "http.response.start", "status": 503, "headers": answer[0]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer[1]})
        return True

    def turn_away(self, exchange: Exchange) -> bool:
        """Our own protocol's question before each request: True if it has its answer."""
        return self.door.turn_away(exchange)

    def drain(self) -> None:
        """No longer ready; calls are still served."""
        self.door.draining = True
        if self.calls and not VOCABULARY.is_loaded:  # calls that are cut are counted, and in the end there is no time
            self.background(VOCABULARY.ready())

    def close_door(self) -> None:
        """No further call is served; those under way go on."""
        self.door.closed = True

    def cut(self) -> None:
        """Calls that are cancelled from now on are so because of us."""
        self._closing.cutting = self._carrier.closing.cutting = True

    @property
    def calls(self) -> int:
        """Calls under way, on this configuration or an earlier one."""
        return self._proxy.under_way

    def direct(self, exchange: Exchange) -> Awaitable[None] | None:
        """Our own protocol's way to the proxy, without messages in between; pages are asked for by ASGI."""
        path = exchange.head.path
        return None if path in PAGES or is_control(path) else self._proxy.direct(exchange)

    @property
    def pages(self) -> Callable[..., Awaitable[None]]:
        """Built at its first use: Starlette is not needed to be ready."""
        if self._pages is None:
            from gateway.pages import Pages

            public = lambda: self.loaded.settings.server.metrics_public  # noqa: E731
            self._pages = Pages(self.reasons, self.notices, self.directory, self.metrics, public).app()
        return self._pages

    @property
    def control(self) -> Callable[..., Awaitable[None]]:
        """The control API, built at its first use as well."""
        if self._control is None:
            from gateway.control.http.site import site

            self._control = site(self.sight, self.adviser, self.directory, self._ids, self.clock)
        return self._control

    @property
    def sight(self) -> Sight:
        """What the control API and `tidegate status` see."""
        return Sight(lambda: self.pools, self.store, self.scheduler, self.routing, self.clock)

    @property
    def adviser(self) -> Adviser:
        """What could be saved."""
        from gateway.advice.adviser import Adviser
        from gateway.records.ledger import READ_PATIENCE_S

        records = self.records
        return Adviser(
            records.queries,
            partial(records.ledger.flush, READ_PATIENCE_S),
            self.directory,
            lambda: self._live.pipeline.policies,
            self.resolve,
            self.clock,
        )

    @staticmethod
    async def _other(scope: Scope, receive: Any, send: Any) -> None:
        """Lifespan (the command line opens and closes us) and WebSocket (refused)."""
        message = await receive()
        while scope["type"] == "lifespan":
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
            message = await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": "WebSocket is not offered"})

    def reasons(self) -> dict[str, list[str]]:
        """By component, what is not well: calls should go elsewhere."""
        return {"server": ["draining"] if self.door.draining else [], "ledger": self.records.ledger.health()}

    def notices(self) -> dict[str, list[str]]:
        """By component, what an operator should know; calls are served all the same."""
        return {"configuration": ["the last reload was refused (see the log)"] if self._refused_reload else []}

    async def reload(self) -> dict[str, Any]:
        """Reads the configuration anew and swaps; an invalid one raises ConfigError and leaves the old one live.
        Gives what changed, and what of it, then or at an earlier reload, only a restart takes over."""
        async with self._reloading:
            try:
                result = await self._reload()
            except Exception as error:
                self._refused_reload = f"the last reload was refused: {error}"
                raise
            self._refused_reload = ""
            return result

    async def _reload(self) -> dict[str, Any]:
        from gateway.config import changes, effective, load, needs_restart

        # In a thread: ten thousand clients take over a second to read.
        loaded = await asyncio.to_thread(load, self.loaded.path, self.loaded.flags, self._env)
        settings = effective(loaded.settings, self._env)
        old = effective(self.loaded.settings, self._env)
        changed = changes(old, settings)
        before = self._live, dict(self._clients), self.pools
        try:
            live = await self._build(settings)
            await self._people(settings)
        except BaseException:
            _, self._clients, self.pools = before
            self._take(old)
            raise
        self._live, self.loaded = live, loaded
        self._route(live, settings)
        await self.pools.declare(self.store)
        await self.scheduler.refresh()
        kept = {id(client) for _, client in self._clients.values()}
        unused = [client for _, client in before[1].values() if id(client) not in kept]
        before[0].retire(lambda: self._close(unused))
        self.events.emit("configuration_reloaded", changed=changed)
        return {"changed": changed, "needs_restart": needs_restart(changes(self._started, settings))}

    def _renew(self, call: Call) -> None:
        """A call that waits goes on under the configuration in force. Raises GatewayError if that no longer lets it."""
        live = self._live
        if call.pipeline is live.pipeline:
            return
        key = self.directory.key(call.key.id)
        if key is None or (key.expires_wall_ns is not None and key.expires_wall_ns <= self.clock.wall_ns()):
            raise InvalidKey("The key of this call was revoked while it waited.")
        call.targets = live.resolver.renewed(call.targets)
        call.pipeline = live.pipeline

    def resolve(self, model: str, dialect: Dialect) -> list[Target]:
        """Where a public name can be served now, by the configuration in force. Raises ModelNotFound."""
        return self.routing.rank(self._live.resolver.named(model, dialect))

    async def _build(self, settings: Settings) -> Live:
        from gateway.config import at_demo

        if settings.demo:
            settings = at_demo(settings, await self._demo_origin())
        self._take(settings)
        self.pools = Pools(settings.pools, self.clock, self._runs)
        live, self._clients = assemble(settings, self, self._clients)
        if (self.batches.are_used or settings.hedge.enabled) and not VOCABULARY.is_loaded:
            self.background(VOCABULARY.ready())  # the first batch, or call that was overtaken, is not to wait for it
        return live

    def _take(self, settings: Settings) -> None:
        """What is asked of the gateway itself, by policies and for each call."""
        self.scheduler.http_wait_cap_s = settings.server.http_wait_cap_s
        self.overload.configure(settings.overload.rules())
        self.compression.configure(settings.compression.rules())
        self.overload.claims = {**CLAIMS, **settings.policy.get("queue", {}).get("claims", {})}
        self.orgs = {name: org.budget.rules() for name, org in settings.orgs.items()}
        self.prices = Prices({name: price.override() for name, price in settings.prices.items()})

    def _route(self, live: Live, settings: Settings) -> None:
        rules = Rules(settings.retry.rules(), settings.breaker.rules(), settings.hedge.rules())
        known = live.resolver.providers
        self.routing.configure(rules, [*known.providers.values(), *known.workers.values()])

    async def _people(self, settings: Settings) -> None:
        from gateway.config import scope_names

        clients, entries = people(settings, self.records.pepper)
        tiers = {name: tier.tier(name) for name, tier in settings.tiers.items()}
        more_clients, more_entries = await self.records.keys.load(tiers)
        self.directory.replace([*clients, *more_clients], [*entries, *more_entries])
        self.records.keys.know(tiers, scope_names(settings))

    async def _demo_origin(self) -> str:
        if self._demo is None:
            from gateway.demo import DemoSettings, start

            self._demo = await start(DemoSettings())
        return self._demo.base_url

    def _forget(self, org: str) -> None:
        """After the org's erasure."""
        self.results.forget(org)
        self.answers.purge(lambda one: one.org == org)

    def _verbs(self) -> dict[str, Verb]:
        """What the command line may ask a running gateway, besides the records' own."""

        async def reload() -> Any:
            return await self.reload()

        async def cache_purge(client: str = "", org: str = "", model: str = "", key: str = "") -> Any:
            named = self.loaded.settings.models.get(model)
            names = {model, *(named.aliases if named is not None else ())}

            def wanted(one: Answer) -> bool:
                said = ((client, one.client), (org, one.org), (key, one.key))
                is_named = not model or one.model in names or one.served == model
                return is_named and all(asked in ("", is_) for asked, is_ in said)

            return {"purged": self.answers.purge(wanted)}

        async def status() -> Any:
            standing = await self.sight.standing()
            told = {"reasons": self.reasons(), "notices": self.notices(), "address": self.address}
            return {"pid": os.getpid(), **told, "calls": self.calls, **standing}

        budgets = BudgetDesk(
            self.adjustments,
            self.records.adjustments.add,
            lambda: self._live.pipeline.policies,
            self.directory,
            self.events,
            self.clock,
            self.time_zone,
        )
        return {
            **self.records.verbs(),
            **budgets.verbs(),
            "reload": reload,
            "status": status,
            "cache_purge": cache_purge,
            "advise": self.adviser.advise,
        }

    @property
    def demo(self) -> bool:
        """The fake provider answers."""
        return self._live.demo

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs it beside the calls; kept until it ends, since the loop itself holds tasks only weakly."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _close(self, clients: list[Any]) -> None:
        for client in clients:
            self.background(client.aclose())

    async def aclose(self) -> None:
        """Lets go of what was opened, in the reverse order: the records last, so that everything is in them."""
        await self._opened.aclose()

    async def _close_clients(self) -> None:
        for _, client in self._clients.values():
            await client.aclose()

    async def _close_demo(self) -> None:
        if self._demo is not None:
            await self._demo.stop()
