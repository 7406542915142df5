"""What is not a call: who we are, whether we live, whether we are ready, and the metrics page."""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway import __version__
from gateway.directory import Directory
from gateway.errors import Forbidden, GatewayError, InvalidKey, MethodNotAllowed, render
from gateway.ids import Ids
from gateway.metrics import Metrics

Reasons = Callable[[], dict[str, list[str]]]


class Pages:
    """Small answers, none of which ever asks a provider. `reasons()` names by component what keeps calls from being
    served well, `notices()` what an operator should know of besides."""

    def __init__(
        self,
        reasons: Reasons,
        notices: Reasons,
        directory: Directory,
        metrics: Metrics,
        metrics_public: Callable[[], bool],
    ) -> None:
        self._reasons = reasons
        self._notices = notices
        self._ids = Ids()
        self._directory = directory
        self._metrics = metrics
        self._metrics_public = metrics_public

    def app(self) -> Callable[..., Any]:
        """The pages, each answer with an id to ask with."""
        inner = self._inner()

        async def identified(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            scope["request_id"] = request_id = self._ids.new(time.time_ns())

            async def with_id(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                await send(message)

            await inner(scope, receive, with_id)

        return identified

    def _inner(self) -> Starlette:
        return Starlette(
            exception_handlers={405: _wrong_method},
            routes=[
                Route("/", self.about),
                Route("/livez", self.livez),
                Route("/readyz", self.readyz),
                Route("/health", self.health),
                Route("/metrics", self.metrics),
            ],
        )

    async def about(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "name": "tidegate", "service": "tidegate", "version": __version__})

    async def livez(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """503 with the reasons while calls should go elsewhere."""
        reasons = [f"{part}: {reason}" for part, found in self._reasons().items() for reason in found]
        if reasons:
            return JSONResponse({"status": "not ready", "reasons": reasons}, 503, {"retry-after": "1"})
        return JSONResponse({"status": "ready", "reasons": []})

    async def health(self, request: Request) -> Response:
        """Each component by name; 200 as long as the process can say so."""
        reasons, notices = self._reasons(), self._notices()
        reasons = {part: [*reasons.get(part, ()), *notices.get(part, ())] for part in {**reasons, **notices}}
        components = {
            part: {"status": "degraded" if found else "ok", "reasons": found} for part, found in reasons.items()
        }
        status = "degraded" if any(reasons.values()) else "ok"
        return JSONResponse({"status": status, "version": __version__, "components": components})

    async def metrics(self, request: Request) -> Response:
        try:
            if not self._metrics_public():
                self._allow(request)
        except GatewayError as error:
            return _refusal(error, request)
        page, content_type = self._metrics.render(request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type})

    def _allow(self, request: Request) -> None:
        """Any key but a plain client's."""
        authorization = request.headers.get("authorization", "")
        secret = authorization.removeprefix("Bearer ").strip() or request.headers.get("x-api-key", "")
        found = self._directory.find(secret.encode()) if secret else None
        if found is None:
            raise InvalidKey(
                "The metrics page needs a key with role viewer, service or admin (or metrics_public = true)."
            )
        if found[0].role == "client":
            raise Forbidden("The metrics page needs a key with role viewer, service or admin; this one is a client's.")


async def _wrong_method(request: Request, error: Exception) -> Response:
    allowed = getattr(error, "headers", None) or {}
    names = allowed.get("Allow", "GET, HEAD")
    message = f"{request.method} is not possible on {request.url.path}; it takes {names}."
    return _refusal(MethodNotAllowed(message, headers=((b"allow", names.encode()),)), request)


def _refusal(error: GatewayError, request: Request) -> Response:
    status, headers, body = render(error, "plain", request.scope["request_id"])
    return Response(body, status, {name.decode(): value.decode() for name, value in headers})
