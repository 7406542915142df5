"""What is not a call: who we are, whether we live, whether we are ready, and the metrics page."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway import __version__
from gateway.directory import Directory
from gateway.errors import Forbidden, GatewayError, InvalidKey, render
from gateway.metrics import Metrics

Reasons = Callable[[], dict[str, list[str]]]


class Pages:
    """Small answers, none of which ever asks a provider. `reasons()` names by component what is not well."""

    def __init__(self, reasons: Reasons, directory: Directory, metrics: Metrics, metrics_public: Callable[[], bool]):
        self._reasons = reasons
        self._directory = directory
        self._metrics = metrics
        self._metrics_public = metrics_public

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self.about),
                Route("/livez", self.livez),
                Route("/readyz", self.readyz),
                Route("/health", self.health),
                Route("/metrics", self.metrics),
            ]
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
        reasons = self._reasons()
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
            status, headers, body = render(error, "plain", "")
            return Response(body, status, {name.decode(): value.decode() for name, value in headers})
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
