"""GET /v1/models: only what the key may use, in the shape of the caller's dialect."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import orjson

from gateway.call import Call, Reply
from gateway.errors import ModelNotFound
from gateway.providers.base import Provider
from gateway.resolve import KIND_OF
from gateway.routes import Match
from gateway.scopes import may_use
from gateway.upstream.base import UpstreamError, UpstreamRequest

if TYPE_CHECKING:
    from gateway.live import Live

#: How long a provider's own list serves for the names behind a pattern.
LIST_TTL_S = 60.0
MAX_LIST_BYTES = 4_194_304


class ModelsPage:
    """Draws the list. Names behind a pattern are asked of the provider: that call is free, and kept for a minute."""

    def __init__(self) -> None:
        self._lists: dict[str, tuple[float, list[str]]] = {}

    async def reply(self, call: Call, match: Match, live: Live) -> Reply:
        """The list, or the one model of /v1/models/{path}."""
        kind = KIND_OF[call.dialect]
        if match.rest:
            return self._one(call, match.rest, live, kind)
        names = set(live.resolver.catalog.names(kind))
        for pattern, provider in live.resolver.catalog.pattern_providers(kind):
            names.update(name for name in await self._listed(provider) if fnmatchcase(name, pattern))
        shown = [self._shape(name, call, live) for name in sorted(names) if self._may(call, name, live)]
        if call.dialect == "anthropic":
            ids = [model["id"] for model in shown] or [None]
            page = {"data": shown, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}
        else:
            page = {"object": "list", "data": shown}
        return _json(page)

    def _one(self, call: Call, name: str, live: Live, kind: str) -> Reply:
        live.resolver.catalog.resolve(name, kind)
        if not self._may(call, name, live):
            raise ModelNotFound(f"The model '{name}' does not exist or this key may not use it.", param="model")
        return _json(self._shape(name, call, live))

    @staticmethod
    def _may(call: Call, name: str, live: Live) -> bool:
        public = live.resolver.catalog.public_name(name)
        return any(may_use(call.client, call.key, "models", one) for one in (name, public))

    @staticmethod
    def _shape(name: str, call: Call, live: Live) -> dict[str, Any]:
        if call.dialect == "anthropic":
            return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
        owner = live.resolver.catalog.resolve(name, KIND_OF[call.dialect])[0].provider.name
        return {"id": name, "object": "model", "created": 0, "owned_by": owner}

    async def _listed(self, provider: Provider) -> list[str]:
        kept = self._lists.get(provider.name)
        if kept is not None and time.monotonic() - kept[0] < LIST_TTL_S:
            return kept[1]
        names = await _ask(provider)
        self._lists[provider.name] = (time.monotonic(), names)
        return names


async def _ask(provider: Provider) -> list[str]:
    """The provider's own names; none when it can't be asked."""
    path = b"/models" if provider.kind.name == "openai" else b"/v1/models"
    headers = [*provider.sent_headers, (b"accept", b"application/json"), (b"accept-encoding", b"identity")]
    if provider.kind.name == "anthropic":
        headers.append((b"anthropic-version", b"2023-06-01"))
    target = provider.base_path + path + (b"?" + provider.query if provider.query else b"")
    try:
        response = await provider.client.send(UpstreamRequest("GET", target, headers))
        try:
            body = b""
            while chunk := await response.read():
                body += chunk
                if len(body) > MAX_LIST_BYTES:
                    return []
        finally:
            await response.aclose()
        rows = orjson.loads(body).get("data", []) if response.status == 200 else []
    except (UpstreamError, orjson.JSONDecodeError, AttributeError):
        return []
    return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def _json(page: dict[str, Any]) -> Reply:
    return Reply(200, [(b"content-type", b"application/json")], orjson.dumps(page))
