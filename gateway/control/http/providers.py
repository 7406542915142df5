"""GET /control/v1/providers: breakers, latencies and calls under way, a row a target and one a provider."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from gateway.control.http.edge import page
from gateway.control.sight import Sight


def routes(sight: Sight) -> list[Route]:
    """Those of the providers."""

    async def providers(request: Request) -> dict[str, Any]:
        return {"providers": sight.providers()}

    return [page("/control/v1/providers", providers)]
