"""Providers and workers: can they be connected to, and does a provider take our key for its (free) list of models."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.config import EndpointSettings, ProviderSettings, WorkerSettings
from gateway.diagnosis.finding import Finding

if TYPE_CHECKING:
    import httpx2


@dataclass(slots=True)
class Probe:
    """What was found at one endpoint. `skew_s` is our clock less its Date header, None where it sent none."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    skew_s: float | None = None


async def probe_provider(name: str, one: ProviderSettings, timeout_s: float) -> Probe:
    """GET models: connects, verifies TLS, shows the key, costs nothing."""
    import httpx2

    probe = Probe(name)
    url = f"{one.base_url}/models" if one.kind == "openai" else f"{one.base_url}/v1/models"
    options: dict[str, Any] = {"timeout": timeout_s, "trust_env": one.trust_env, "follow_redirects": False}
    try:
        async with httpx2.AsyncClient(verify=_tls(one), **options) as client:
            started = time.time()
            query = {key: value.get_secret_value() for key, value in one.query.items()}
            async with client.stream("GET", url, params=query, headers=_headers(one)) as reply:
                _judge(probe, one, url, reply)
                probe.skew_s = _skew(reply, (started + time.time()) / 2)
    except (httpx2.TransportError, httpx2.InvalidURL, OSError) as error:
        probe.findings.append(_unreachable(name, url, error))
    return probe


async def probe_worker(name: str, one: WorkerSettings, timeout_s: float) -> Probe:
    """Connects and no more: what a request would set off at a worker is not known."""
    probe = Probe(name)
    url = urlsplit(one.base_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    context = _tls(one) if url.scheme == "https" else None
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(url.hostname, port, ssl=context)
            writer.close()
            await writer.wait_closed()
    except OSError as error:  # TimeoutError and ssl.SSLError are OSErrors
        probe.findings.append(_unreachable(name, one.base_url, error))
    else:
        probe.findings.append(Finding("ok", name, f"worker {one.base_url} takes connections"))
    return probe


def _tls(one: EndpointSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(one.ca_file) if one.ca_file else None)
    if not one.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _headers(one: ProviderSettings) -> dict[str, str]:
    headers = {name: value.get_secret_value() for name, value in one.headers.items()}
    if one.kind == "anthropic":
        headers.setdefault("anthropic-version", "2023-06-01")
    if one.key and one.auth_header is not None:
        headers[one.auth_header] = one.key
    elif one.key and one.kind == "anthropic":
        headers["x-api-key"] = one.key
    elif one.key:
        headers["authorization"] = f"Bearer {one.key}"
    return headers


def _judge(probe: Probe, one: ProviderSettings, url: str, reply: httpx2.Response) -> None:
    status, name = reply.status_code, probe.name

    def found(status_word: Any, message: str, hint: str = "") -> None:
        probe.findings.append(Finding(status_word, name, message, hint))

    if status == 200 and "json" in reply.headers.get("content-type", ""):
        found("ok", f"{url} answers{' and takes the key' if one.key else ', no key is configured'}")
    elif status == 200:
        found("fail", f"{url} answers with something that is not JSON", "is this the base URL of an API?")
    elif status == 401:
        found("fail", f"{url} refuses {'the key' if one.key else 'calls without a key'} (401)", "check api_key")
    elif status == 403:
        found("warn", f"{url} forbids the list of models to this key (403)", "calls may work all the same")
    elif status in (404, 405):
        found("fail" if _lacks_path(one) else "warn", f"{url} does not exist ({status})", _path_hint(one))
    elif 300 <= status < 400:
        found("fail", f"{url} redirects to {reply.headers.get('location', '?')}", "use that address as base_url")
    elif status == 429:
        found("warn", f"{url} answers, and limits us already (429)")
    else:
        found("fail", f"{url} answers with status {status}")


def _lacks_path(one: ProviderSettings) -> bool:
    return one.kind == "openai" and not urlsplit(one.base_url).path


def _path_hint(one: ProviderSettings) -> str:
    if _lacks_path(one):
        return f'most want base_url = "{one.base_url}/v1"'
    return "check the path of base_url; some providers have no list of models"


def _unreachable(name: str, url: str, error: Exception) -> Finding:
    reason = str(error) or type(error).__name__
    text = f"{reason} {error.__cause__ or ''}"
    hint = "check base_url and the network"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        hint = "its certificate is not one we trust: ca_file names the authority that signed it"
    elif "timeout" in type(error).__name__.lower():
        reason, hint = "no answer in time", "check base_url, the network and proxies (trust_env)"
    return Finding("fail", name, f"{url} can't be reached: {reason}", hint)


def _skew(reply: httpx2.Response, now: float) -> float | None:
    try:
        stamp = parsedate_to_datetime(reply.headers["date"]).timestamp()
        age = float(reply.headers.get("age", "0"))  # a cache in between answers with the Date of back then
    except (KeyError, ValueError, TypeError):
        return None
    return now - stamp - age
