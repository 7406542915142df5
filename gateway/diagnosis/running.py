"""Is a gateway running at the configured address, and is it ready."""

from __future__ import annotations

from gateway.config import ServerSettings
from gateway.diagnosis.finding import Finding

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (asked at, not bound to)


async def running(server: ServerSettings, timeout_s: float) -> list[Finding]:
    """Asks / and /readyz; nothing of it reaches a provider."""
    import httpx2

    if not server.port:
        return [Finding("info", "running gateway", "port 0 is a free one at each start: nothing to look for")]
    host = _EVERYWHERE.get(server.host, server.host)
    origin = f"http://{f'[{host}]' if ':' in host else host}:{server.port}{server.root_path}"
    try:
        async with httpx2.AsyncClient(timeout=min(timeout_s, 2.0), trust_env=False) as client:
            about = await client.get(f"{origin}/")
            facts = about.json() if "json" in about.headers.get("content-type", "") else {}
            if not isinstance(facts, dict) or facts.get("name") != "tidegate":
                return [_stranger(origin)]
            ready = await client.get(f"{origin}/readyz")
    except httpx2.ConnectError:
        return [Finding("info", "running gateway", f"none at {origin}", "tidegate serve starts it")]
    except (httpx2.TransportError, ValueError):
        return [_stranger(origin)]
    if ready.status_code != 200:
        return [Finding("fail", "running gateway", f"{origin} is not ready: {ready.text[:300]}")]
    return [Finding("ok", "running gateway", f"{origin} is ready (version {facts.get('version', '?')})")]


def _stranger(origin: str) -> Finding:
    return Finding("fail", "running gateway", f"something else listens at {origin}", "choose another server.listen")
