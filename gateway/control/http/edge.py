"""The edge of the control API: who may read, every answer's request id, and every error in the plain dialect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, Router

from gateway.clock import Clock
from gateway.directory import Directory
from gateway.errors import Forbidden, GatewayError, Internal, InvalidKey, MethodNotAllowed, NotFound, render
from gateway.ids import Ids

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Said = dict[str, Any]


class Answer(Exception):  # noqa: N818 (it is no error of ours)
    """An answer with a status of its own and a shape that callers know."""

    def __init__(self, status: int, body: Said) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def page(path: str, said: Callable[[Request], Awaitable[Said]], method: str = "GET") -> Route:
    """A route that answers what `said` gives, as JSON."""

    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await said(request))
        except Answer as other:
            return JSONResponse(other.body, other.status)

    return Route(path, answer, methods=[method])


#: Where a client's key may read as well, one thing under each: what is its own, and nothing of others.
OF_CLIENTS = ("/control/v1/queue/", "/api/queue/position/")


class Edge:
    """An ASGI application around the routes. Readers have a key of role viewer, service or admin; clients read the
    place of their own calls."""

    def __init__(self, routes: list[BaseRoute], directory: Directory, ids: Ids, clock: Clock) -> None:
        self._router = Router(routes, redirect_slashes=False)
        self._directory = directory
        self._ids = ids
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        request_id = self._ids.new(self._clock.wall_ns())
        scope["app"] = self  # Starlette's router raises what it can't serve where it is part of an application

        async def sent(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            self._allow(Request(scope))
            await self._router(scope, receive, sent)
        except Exception as error:  # the ASGI edge: nothing of it may reach a caller but in our words
            status, headers, body = render(_ours(error), "plain", request_id)
            shown = {name.decode(): value.decode() for name, value in headers}
            await Response(body, status, shown)(scope, receive, sent)

    def _allow(self, request: Request) -> None:
        authorization = request.headers.get("authorization", "")
        secret = authorization.removeprefix("Bearer ").strip() or request.headers.get("x-api-key", "")
        found = self._directory.find(secret.encode()) if secret else None
        if found is None:
            raise InvalidKey("The control API needs a key with role viewer, service or admin; this key is not known.")
        key, client = found
        if key.role == "client" and not _is_of_clients(request.url.path):
            raise Forbidden("The control API needs a key with role viewer, service or admin; this one is a client's.")
        request.scope["role"] = key.role
        request.scope["sees"] = client.id if key.role == "client" else None


def _is_of_clients(path: str) -> bool:
    above, slash, name = path.rpartition("/")
    return bool(name) and above + slash in OF_CLIENTS


def may_see(request: Request, client: str) -> bool:
    """Whether the caller may read what is that client's."""
    sees = request.scope["sees"]
    return sees is None or sees == client


def _ours(error: Exception) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 405:
        return MethodNotAllowed("This path of the control API does not take that method.")
    if isinstance(error, HTTPException):
        return NotFound("There is no such path in the control API.")
    structlog.get_logger().error("control API failed", error=repr(error))
    return Internal()
