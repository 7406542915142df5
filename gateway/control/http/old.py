"""The paths of the Resource Manager that this gateway replaces, in its shapes: thin readers of the same figures."""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil
from typing import Any

import orjson
from starlette.requests import Request
from starlette.routing import Route

from gateway.control.http.edge import Answer, may_see, page
from gateway.control.sight import Sight
from gateway.errors import BadRequest, TooLarge
from gateway.state.store import Lack

Shape = dict[str, Any]
MOST_BYTES = 65_536


def routes(sight: Sight) -> list[Route]:
    """All of them; their callers spell in camelCase or snake_case."""
    old = Old(sight)
    return [
        page("/status", old.status),
        page("/api/resources/availability", old.availability),
        page("/api/resources/check", old.check, "POST"),
        page("/api/queue/status", old.queue),
        page("/api/queue/position/{request_id}", old.position),
    ]


class Old:
    """Answers as the Resource Manager did. Times in ms, moments in ISO 8601."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight

    async def status(self, request: Request) -> Shape:
        return {"resources": await self._parts(), "queues": self._levels(), "timestamp": self._moment(0)}

    async def availability(self, request: Request) -> Shape:
        return {"availability": await self._parts()}

    async def check(self, request: Request) -> Shape:
        """Whether that much could be had now, and otherwise when."""
        name, amount = await _asked(request)
        parts = (await self._parts()).get(name)
        if parts is None:
            raise Answer(404, {"available": False, "reason": "unknown_resource"})
        lacks = await self._sight.lacks(name, amount)
        if not lacks:
            return {"available": True, "waitTime": 0, "pools": parts}
        available = max(0, min([lack.available if lack.available < amount else 0 for lack in lacks]))  # 0: closed
        lacking = {"currentlyAvailable": available, "required": amount}
        return {"available": False, "waitTime": _wait_ms(lacks), **lacking}

    async def queue(self, request: Request) -> Shape:
        snapshot = self._sight.scheduler.snapshot()
        return {**self._levels(), "executing": snapshot.executing, "total": snapshot.total}

    async def position(self, request: Request) -> Shape:
        request_id = request.path_params["request_id"]
        view = self._sight.scheduler.position(request_id)
        if view is None or not may_see(request, view.client):
            raise Answer(404, {"error": "Request not found", "requestId": request_id})
        return {
            "requestId": view.id,
            "status": "queued",
            "queue": view.level,
            "priority": view.priority,
            "position": view.position,
            "estimatedWait": view.estimate_ms,
            "queuedAt": self._moment(view.waited_ms),
        }

    async def _parts(self) -> Shape:
        return {
            row["name"]: {"shared": _part(row["shared"]), "reserved": _part(row["reserved"])}
            for row in await self._sight.pools()
        }

    def _levels(self) -> Shape:
        return {
            name: {"depth": level.depth, "oldest": level.oldest_ms, "starved": level.starved}
            for name, level in self._sight.scheduler.snapshot().levels.items()
        }

    def _moment(self, ago_ms: int) -> str:
        at = datetime.fromtimestamp(self._sight.clock.wall_ns() / 1e9 - ago_ms / 1000, UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _wait_ms(lacks: list[Lack]) -> int | None:
    """Until all of it has come back, if nobody else takes any; None: it never fits."""
    longest_s = 0.0
    for lack in lacks:
        if lack.retry_after_s is None:
            return None
        longest_s = max(longest_s, lack.retry_after_s)
    return ceil(longest_s * 1000)


def _part(level: Shape | None) -> Shape:
    return {name: 0 if level is None else level[name] for name in ("available", "capacity", "percentage")}


async def _asked(request: Request) -> tuple[str, int]:
    """The resource and the amount of a check. Raises BadRequest."""
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MOST_BYTES:
            raise TooLarge("A check is a small JSON object: resourceType and amount.")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise BadRequest("A check is a JSON object with resourceType and amount.")
    name = body.get("resourceType", body.get("resource_type"))
    amount = body.get("amount")
    if not isinstance(name, str):
        raise BadRequest("resourceType is the name of a pool.", param="resourceType")
    if isinstance(amount, bool) or not isinstance(amount, int) or amount < 0:
        raise BadRequest("amount is a whole number, 0 or more.", param="amount")
    return name, amount
