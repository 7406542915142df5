"""GET /control/v1/pools: every pool's parts and windows, and how many calls wait for it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from gateway.control.http.edge import page
from gateway.control.sight import Sight


def routes(sight: Sight) -> list[Route]:
    """Those of the pools."""

    async def pools(request: Request) -> dict[str, Any]:
        return {"pools": await sight.pools()}

    return [page("/control/v1/pools", pools)]
