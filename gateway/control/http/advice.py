"""GET /control/v1/advice: what could be saved, from the ledger; for administrators and services."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from gateway.advice.adviser import Adviser
from gateway.control.http.edge import page
from gateway.errors import BadRequest, Forbidden


def routes(adviser: Adviser) -> list[Route]:
    """The one."""

    async def advice(request: Request) -> dict[str, Any]:
        if request.scope["role"] not in ("admin", "service"):
            raise Forbidden("Advice needs a key with role service or admin.")
        days = request.query_params.get("days", "7")
        if not (days.isascii() and days.isdigit() and len(days) < 4):
            raise BadRequest("days is a whole number.", param="days")
        try:
            return await adviser.advise(request.query_params.get("client", ""), int(days))
        except ValueError as error:
            raise BadRequest(f"{error}.", param="days") from None

    return [page("/control/v1/advice", advice)]
