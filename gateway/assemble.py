"""From settings to the parts that serve calls: providers, models, pipeline."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gateway.catalog import Catalog, Entry, Providers
from gateway.clients import Client, Key
from gateway.directory import KeyEntry, digest_of
from gateway.errors import Header
from gateway.live import Live
from gateway.pipeline import Pipeline
from gateway.policy import Gate, Policy, build, check_order
from gateway.prices import Prices, Quote
from gateway.providers import KINDS
from gateway.providers.base import Provider
from gateway.resolve import Resolver
from gateway.server.headers import DROP, KEEP, RequestRules, ResponseRules
from gateway.server.peers import Networks
from gateway.targets import Target
from gateway.upstream.base import Timeouts, UpstreamClient

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.config.endpoints import EndpointSettings, ModelSettings, ProviderSettings, WorkerSettings
    from gateway.pools import Pools

#: Upstream clients by provider name, with the settings they were made from: a reload keeps those that are the same.
Clients = dict[str, tuple[object, UpstreamClient]]


def assemble(settings: Settings, gate: Gate, clients: Clients) -> tuple[Live, Clients]:
    """Builds what depends on the configuration. `clients` are those in use; gives those of the new configuration."""
    kept: Clients = {}
    pools = gate.pools
    providers = {name: _provider(name, one, one.kind, clients, kept) for name, one in settings.providers.items()}
    workers = {name: _provider(name, one, "http", clients, kept, "worker:") for name, one in settings.workers.items()}
    for name, one in settings.workers.items():
        workers[name].pools = pools.use(name, one.pools)
        workers[name].stated_pools = frozenset(one.stated_pools)
        pools.stated |= workers[name].stated_pools
    prices = gate.prices
    everything = Providers(providers, workers)
    entries = [_entry(name, model, providers, prices, pools) for name, model in settings.models.items()]
    drawn = [(target.pools, target.provider.name) for entry in entries for target in entry.targets]
    pools.learn_by([*drawn, *((worker.pools, name) for name, worker in workers.items())])
    catalog = Catalog(
        entries,
        reprice=lambda target: replace(
            target, quote=_quote(prices, target.provider, target.model, target.upstream_model)
        ),
    )
    resolver = Resolver(catalog, everything, dict(KINDS), prices)
    pipeline = Pipeline(policies(settings, gate), gate.store, gate.metrics, gate.scheduler)
    live = Live(
        resolver,
        pipeline,
        settings.server.body_limit,
        _trust(settings.server.trusted_proxies),
        settings.demo,
        prefix=settings.server.root_path.encode(),
    )
    return live, kept


def policies(settings: Settings, gate: Gate) -> list[Policy]:
    """The policies in their order, checked and provided for."""
    built = [build(name, dict(settings.policy.get(name, {}))) for name in settings.policies]
    check_order(built)
    for policy in built:
        policy.provide(gate)
    return built


def people(settings: Settings, pepper: bytes) -> tuple[list[Client], list[KeyEntry]]:
    """The clients and keys of the file."""
    clients, entries = [], []
    tiers = {name: tier.tier(name) for name, tier in settings.tiers.items()}
    for client_id, one in settings.clients.items():
        clients.append(one.client(client_id, tiers))
        for key in one.keys:
            digest = _digest(key, pepper)
            key_id = key.id or f"{client_id}-{hashlib.sha256(digest).hexdigest()[:12]}"
            secret = key.secret.get_secret_value() if key.secret is not None else ""
            entries.append(
                KeyEntry(
                    Key(
                        id=key_id,
                        client_id=client_id,
                        role=key.role,
                        hint=secret[-4:] if len(secret) >= 12 else "",
                        scope=key.scope(),
                        quota=key.quota.rules(),
                        budget=key.budget.rules(),
                        expires_wall_ns=key.expires_wall_ns,
                        source="file",
                    ),
                    digest,
                )
            )
    return clients, entries


def _digest(key: object, pepper: bytes) -> bytes:
    hashed = getattr(key, "hash", None)
    if hashed is not None:
        return bytes.fromhex(hashed.get_secret_value())
    secret = getattr(key, "secret", None)
    if secret is None:
        raise ValueError("a key without a secret")
    return digest_of(pepper, secret.get_secret_value().encode())


def _provider(
    name: str,
    one: EndpointSettings,
    kind: str,
    clients: Clients,
    kept: Clients,
    prefix: str = "",
) -> Provider:
    from urllib.parse import urlencode, urlsplit

    settings: ProviderSettings | WorkerSettings = one  # type: ignore[assignment]  # both have timeouts
    timeouts = settings.timeouts.upstream()
    known = clients.get(prefix + name)
    client = known[1] if known is not None and known[0] == one else _client(one, timeouts)
    kept[prefix + name] = (one, client)
    provider = Provider(
        name=name,
        kind=KINDS[kind],
        base_url=one.base_url,
        base_path=urlsplit(one.base_url).path.rstrip("/").encode(),
        client=client,
        api_key=one.every_key[0],
        timeouts=timeouts,
        headers=[(header.lower().encode(), value.get_secret_value().encode()) for header, value in one.headers.items()],
        query=urlencode({key: value.get_secret_value() for key, value in one.query.items()}).encode(),
        auth_header=(one.auth_header or "").lower().encode(),
        request_rules=_ProviderRules(kind, one.pass_headers, one.attempt_header),
        response_rules=ResponseRules(kind),
        passes=frozenset([header.lower().encode() for header in one.pass_headers]),
        max_concurrent=one.max_concurrent,
        accepts=one.accepts,
        body_limit=one.body_limit or 0,
        attempt_header=(one.attempt_header or "").lower().encode(),
        retry={} if one.retry is None else one.retry.model_dump(exclude_none=True),
        breaker={} if one.breaker is None else one.breaker.model_dump(exclude_none=True),
    )
    # What is metered has to be readable: upstream is always asked for the plain encoding.
    provider.credentials = [_sent_headers(provider, key) for key in one.every_key]
    provider.api_key, provider.sent_headers = one.every_key[0], provider.credentials[0]
    provider.health_path = _health_path(provider, one.health_path)
    provider.tls = partial(_tls, one)
    return provider


def _sent_headers(provider: Provider, key: str) -> list[Header]:
    provider.api_key = key
    return [*provider.kind.credentials(provider), (b"accept-encoding", b"identity")]


def _health_path(provider: Provider, configured: str) -> bytes:
    """What is asked for nothing while a breaker is open: the list of models, where a provider has one."""
    if configured:
        return configured.encode()
    free = {"openai": b"/models", "anthropic": b"/v1/models"}.get(provider.kind.name)
    if free is None:
        return b""
    return provider.base_path + free + (b"?" + provider.query if provider.query else b"")


class _ProviderRules(RequestRules):
    """The kind's own rules, and the headers that this provider's configuration lets pass besides."""

    def __init__(self, kind: str, passed: Iterable[str], ours: str | None) -> None:
        super().__init__(kind)
        self._ours = (ours or "").lower().encode()
        self._passed = frozenset(name.lower().encode() for name in passed)

    def decide(self, name: bytes) -> int:
        if name in (b"accept-encoding", self._ours):
            return DROP  # we ask for the plain encoding, and say which attempt it is, ourselves
        return KEEP if name in self._passed else super().decide(name)


def _tls(one: EndpointSettings) -> ssl.SSLContext | None:
    if not one.base_url.startswith("https"):
        return None
    context = ssl.create_default_context(cafile=str(one.ca_file) if one.ca_file else None)
    if not one.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _client(one: EndpointSettings, timeouts: Timeouts) -> UpstreamClient:
    context = _tls(one)
    most = one.max_connections or max(one.max_concurrent, 256)
    if one.client == "httpx":
        from gateway.upstream.httpx import HttpxClient

        return HttpxClient(one.base_url, timeouts, max_connections=most, ssl_context=context, trust_env=one.trust_env)
    from gateway.upstream.native import NativeClient

    return NativeClient(one.base_url, timeouts, max_connections=most, ssl_context=context)


def _entry(name: str, model: ModelSettings, providers: Mapping[str, Provider], prices: Prices, pools: Pools) -> Entry:
    use = pools.use(name, model.pools)
    targets = tuple(
        Target(
            provider=providers[target.provider],
            model=name,
            upstream_model=target.upstream_model,
            # A pattern's target gets its price with its name; until then the price list need not be loaded.
            quote=prices.quote("http", "", "", "")
            if "*" in name
            else _quote(prices, providers[target.provider], name, target.upstream_model),
            default_output_tokens=model.default_output_tokens,
            unbounded_tokens=model.unbounded_tokens,
            enforce_output_cap=model.enforce_output_cap,
            weight=target.weight or 0,
            abilities=model.abilities.abilities(),
            pools=use if target.pools is None else pools.use(name, target.pools),
        )
        for target in model.targets
    )
    return Entry(name, targets, tuple(model.aliases))


def _quote(prices: Prices, provider: Provider, model: str, upstream_model: str) -> Quote:
    return prices.quote(provider.kind.name, provider.name, model, upstream_model)


def _trust(networks: Iterable[object]) -> Callable[[str], bool]:
    """Whether a peer's address is one of the trusted proxies."""
    trusted = Networks(tuple(str(network) for network in networks))
    return trusted.__contains__
