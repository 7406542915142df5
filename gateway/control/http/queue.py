"""GET /control/v1/queue and /control/v1/queue/{request id}: the five levels, and who waits where."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from gateway.control.http.edge import may_see, page
from gateway.control.sight import SHOWN, Sight
from gateway.errors import BadRequest, NotFound

#: Waiting calls on one page, at most.
MOST_SHOWN = 1000


def routes(sight: Sight) -> list[Route]:
    """Those of the queue."""

    async def queue(request: Request) -> dict[str, Any]:
        return sight.queue(shown=_limit(request.query_params.get("limit")))

    async def call(request: Request) -> dict[str, Any]:
        request_id = request.path_params["request_id"]
        view = sight.scheduler.position(request_id)
        if view is None or not may_see(request, view.client):
            raise NotFound(f"No call with the request id '{request_id[:80]}' waits in the queue.")
        return asdict(view)

    return [page("/control/v1/queue", queue), page("/control/v1/queue/{request_id}", call)]


def _limit(said: str | None) -> int:
    if said is None:
        return SHOWN
    if not (said.isascii() and said.isdigit() and len(said) < 5 and int(said) <= MOST_SHOWN):
        raise BadRequest(f"limit is a whole number up to {MOST_SHOWN}.", param="limit")
    return int(said)
