"""Base URLs: those that clients on this machine use, and those of providers that would lead back to us."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import SplitResult, urlsplit

from gateway.config import ServerSettings, Settings
from gateway.diagnosis.finding import Finding

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost", "0.0.0.0", "::"})  # noqa: S104 (compared with, not bound to)
_TWICE = re.compile(r"/v1/v1(/|$)")


def client_addresses(env: Mapping[str, str], server: ServerSettings) -> list[Finding]:
    """What OPENAI_BASE_URL and ANTHROPIC_BASE_URL make the SDKs ask for."""
    return [*_openai(env.get("OPENAI_BASE_URL", ""), server), *_anthropic(env.get("ANTHROPIC_BASE_URL", ""), server)]


def own_address(settings: Settings) -> list[Finding]:
    """Providers and workers whose base URL is this gateway's own: calls would go round until they time out."""
    endpoints = [*settings.providers.items(), *settings.workers.items()]
    return [
        Finding("fail", name, f"{one.base_url} is this gateway itself", "give it the provider's own base URL")
        for name, one in endpoints
        if leads_here(urlsplit(one.base_url), settings.server)
    ]


def leads_here(url: SplitResult, server: ServerSettings) -> bool:
    """Whether a URL names the address that this configuration listens on, as far as names tell."""
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        return False
    if port != server.port:
        return False
    return url.hostname == server.host or (url.hostname in _LOOPBACK and server.host in _LOOPBACK)


def _openai(value: str, server: ServerSettings) -> Iterator[Finding]:
    name = "OPENAI_BASE_URL"
    if not value:
        return
    url = urlsplit(value)
    path = url.path.rstrip("/")
    if leads_here(url, server) and path in (server.root_path, f"{server.root_path}/v1/v1"):
        yield Finding("ok", name, f"{value} leads to this gateway, which adds or drops /v1 as it should be")
    elif _TWICE.search(path):
        right = url._replace(path=re.sub(r"(/v1)+", "/v1", path)).geturl()
        yield Finding("fail", name, f"{value} has /v1 twice", f"export {name}={right}")
    elif leads_here(url, server):
        wanted = f"{server.root_path}/v1"
        if path == wanted:
            yield Finding("ok", name, f"{value} leads to this gateway")
        else:
            right = url._replace(path=wanted).geturl()
            yield Finding("fail", name, f"{value} lacks the path {wanted}", f"export {name}={right}")
    elif not path:
        yield Finding("warn", name, f"{value} has no path; the SDK appends /chat/completions to it", "most end in /v1")


def _anthropic(value: str, server: ServerSettings) -> Iterator[Finding]:
    name = "ANTHROPIC_BASE_URL"
    if not value:
        return
    url = urlsplit(value)
    path = url.path.rstrip("/")
    if leads_here(url, server) and path in (f"{server.root_path}/v1", f"{server.root_path}/v1/v1"):
        yield Finding("ok", name, f"{value} leads to this gateway, which drops the /v1 that is too much")
    elif path.endswith("/v1"):
        right = url._replace(path=re.sub(r"(/v1)+$", "", path)).geturl()
        yield Finding(
            "fail" if _TWICE.search(path) else "warn",
            name,
            f"{value} ends in /v1, and Anthropic's SDKs append /v1/messages: they ask for /v1/v1/messages",
            f"export {name}={right}",
        )
    elif leads_here(url, server):
        if path == server.root_path:
            yield Finding("ok", name, f"{value} leads to this gateway")
        else:
            right = url._replace(path=server.root_path).geturl()
            yield Finding("fail", name, f"{value} has a path that nothing is at", f"export {name}={right}")
