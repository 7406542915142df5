"""Is a gateway running on the data directory, or at the configured address, and is it ready."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.config import ServerSettings
from gateway.control.socket import AdminError, NotRunningError, ask_within
from gateway.diagnosis.finding import Finding

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (asked at, not bound to)
_LONGEST_S = 2.0


async def running(server: ServerSettings, timeout_s: float) -> list[Finding]:
    """Asks the data directory's socket, then / and /readyz; nothing of it reaches a provider."""
    within_s = min(timeout_s, _LONGEST_S)
    try:
        told = await ask_within(within_s, Path(server.data_dir), "status")
    except NotRunningError:
        return await _at_address(server, within_s)
    except AdminError as error:
        return [Finding("fail", "running gateway", str(error))]
    return [*_of_socket(told, server), *await _readiness(told["address"], within_s)]


def _of_socket(told: Mapping[str, Any], server: ServerSettings) -> Iterator[Finding]:
    address, wanted = told["address"], _origin(server)
    hint = "" if not server.port or address == wanted else f"the configuration says {wanted}: a restart takes it over"
    yield Finding("ok", "running gateway", f"process {told['pid']} on {server.data_dir}, at {address}", hint)
    for part, notices in told["notices"].items():
        for notice in notices:
            yield Finding("warn", f"running: {part}", notice.partition("\n")[0])


async def _readiness(origin: str, timeout_s: float) -> list[Finding]:
    import httpx2

    try:
        async with httpx2.AsyncClient(timeout=timeout_s, trust_env=False) as client:
            ready = await client.get(f"{origin}/readyz")
    except httpx2.TransportError as error:
        return [Finding("fail", "running gateway", f"{origin}/readyz does not answer: {error}")]
    if ready.status_code != 200:
        return [Finding("fail", "running gateway", f"{origin} is not ready: {ready.text[:300]}")]
    return [Finding("ok", "running gateway", f"{origin} is ready")]


def _origin(server: ServerSettings) -> str:
    host = _EVERYWHERE.get(server.host, server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}{server.root_path}"


async def _at_address(server: ServerSettings, timeout_s: float) -> list[Finding]:
    """Where none runs on this data directory: one of another directory may listen there, or something else."""
    import httpx2

    if not server.port:
        return [Finding("info", "running gateway", f"none on {server.data_dir}", "tidegate serve starts it")]
    origin = _origin(server)
    try:
        async with httpx2.AsyncClient(timeout=timeout_s, trust_env=False) as client:
            about = await client.get(f"{origin}/")
            facts = about.json() if "json" in about.headers.get("content-type", "") else {}
    except httpx2.ConnectError:
        return [Finding("info", "running gateway", f"none on {server.data_dir}", "tidegate serve starts it")]
    except (httpx2.TransportError, ValueError):
        return [_stranger(origin)]
    if not isinstance(facts, dict) or facts.get("name") != "tidegate":
        return [_stranger(origin)]
    other = f"{origin} is a gateway (version {facts.get('version', '?')}), but not one on {server.data_dir}"
    hint = "is that the data directory you mean? --data-dir names another"
    return [Finding("warn", "running gateway", other, hint), *await _readiness(origin, timeout_s)]


def _stranger(origin: str) -> Finding:
    return Finding("fail", "running gateway", f"something else listens at {origin}", "choose another server.listen")
