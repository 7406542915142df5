"""Lists of stored objects as one org may see them: without the others' rows, and never an empty page before the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import orjson

from gateway.call import Call
from gateway.errors import BadUpstream, Header
from gateway.providers.base import Provider
from gateway.upstream.base import UpstreamError, UpstreamRequest

if TYPE_CHECKING:
    from gateway.objects import ObjectWall

#: How many rows are asked for when a page had nothing for this org, and how many times at most.
STEP = 100
MOST_PAGES = 100
MOST_BYTES = 33_554_432


class OwnPages:
    """One call's list. `headers` are those that the call sent upstream, without the provider's own."""

    def __init__(self, wall: ObjectWall, call: Call, provider: Provider, headers: list[Header]) -> None:
        self._wall = wall
        self._call = call
        self._provider = provider
        self._headers = list(headers)
        self._query = dict(parse_qsl(call.query.decode("latin-1"), keep_blank_values=True))

    async def filter(self, body: bytes) -> bytes:
        """The reply to the client from the provider's. Raises BadUpstream for a list that can't be read."""
        is_known = self._call.route.name != "other"
        if not is_known and body.lstrip()[:1] not in (b"{", b"[", b"\x1f"):
            return body
        page = self._read(body)
        came = orjson.dumps(page)
        if isinstance(page, list):
            page = await self._own(page)
        else:
            await self._sift(page, is_known)
        shown = orjson.dumps(page)
        return body if shown == came else shown

    async def _sift(self, page: dict[str, Any], is_known: bool) -> None:
        if isinstance(page.get("data"), list):
            await self._fill(page)
        for name, rows in page.items():
            if name != "data" and isinstance(rows, list) and not is_known:
                page[name] = await self._own(rows)

    async def _fill(self, page: dict[str, Any]) -> None:
        """A client stops at an empty page, and goes on from the last row that it sees."""
        rows, more = page["data"], page.get("has_more") is True
        own = await self._own(rows)
        for _ in range(MOST_PAGES):
            if own or not more or not rows:
                break
            rows, more = await self._next(rows)
            own = await self._own(rows)
        wanted = self._query.get("limit", "")
        if wanted.isdigit() and 0 < int(wanted) < len(own):
            own, more = own[: int(wanted)], True
        page["data"] = own
        if "has_more" in page:
            page["has_more"] = more and bool(own)
        for name, at in (("first_id", 0), ("last_id", -1)):
            if name in page:
                page[name] = own[at].get("id") if own else None

    async def _next(self, rows: list[Any]) -> tuple[list[Any], bool]:
        """The page behind these rows, in the direction that the client asked for."""
        suffix = "_id" if self._call.dialect == "anthropic" else ""
        before, after = f"before{suffix}", f"after{suffix}"
        edge, cursor = (rows[0], before) if before in self._query else (rows[-1], after)
        if not isinstance(edge, dict) or not isinstance(edge.get("id"), str):
            return [], False
        query = {name: value for name, value in self._query.items() if name not in (before, after)}
        limit = query.get("limit", "")
        query |= {cursor: edge["id"], "limit": str(max(STEP, int(limit) if limit.isdigit() else 0))}
        page = self._read(await self._ask(urlencode(query).encode()))
        found = page.get("data") if isinstance(page, dict) else None
        return (found, page.get("has_more") is True) if isinstance(found, list) else ([], False)

    async def _ask(self, query: bytes) -> bytes:
        """Lists are free: this exchange is no attempt of its own."""
        call, provider = self._call, self._provider
        target = provider.kind.path_for(provider, call, None).partition(b"?")[0]
        asked = b"&".join(filter(None, (query, provider.query)))
        headers = self._headers + provider.sent_headers + provider.kind.extra_headers(call)
        parts, size = [], 0
        try:
            response = await provider.client.send(UpstreamRequest("GET", target + b"?" + asked, headers))
            try:
                while response.status == 200 and (chunk := await response.read()):
                    parts.append(chunk)
                    size += len(chunk)
                    if size > MOST_BYTES:
                        break
            finally:
                await response.aclose()
        except UpstreamError:
            parts = []
        return b"".join(parts)

    async def _own(self, rows: list[Any]) -> list[Any]:
        return await self._wall.own(self._call, rows, self._provider.name)

    def _read(self, body: bytes) -> Any:
        try:
            page: Any = orjson.loads(body)
        except orjson.JSONDecodeError:
            page = None
        if not isinstance(page, dict | list):
            raise BadUpstream(f"Provider '{self._provider.name}' gave a list that can't be read, or is too long.")
        return page
