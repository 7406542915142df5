"""The wall around what providers store: files, batches, responses belong to the org that made them (TERMS 12)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson

from gateway.call import Call
from gateway.errors import NotFound
from gateway.records.objects import Objects
from gateway.routes import Match

#: What an id made by a provider looks like on paths that we know nothing else about: a prefix, then something random.
_ID = re.compile(r"[A-Za-z]+[A-Za-z_.]*[-_][A-Za-z0-9_-]{6,}")


class ObjectWall:
    """Checks the ids that a call names, remembers those that its reply made, filters lists."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def check(self, call: Call, match: Match) -> str:
        """The provider that holds the object named by the path or body, or "". Raises NotFound for others' ids."""
        call.object_id = match.id if match.route.objects else ""
        holder = ""
        for object_id in self._named(call, match):
            owner = await self._objects.owner(object_id)
            if owner is None or owner.org != call.client.org:
                raise NotFound(f"No such object: {object_id}. It does not exist, or it belongs to another org.")
            holder = holder or owner.provider
        return holder

    def learn(self, call: Call, made: Iterable[str], provider: str, deleted: bool) -> None:
        """From a reply: objects that it made belong to the caller's org, one that was deleted to nobody."""
        for one in made:
            if one != call.object_id:
                self._objects.add(one, call.client.org, call.client.id, provider, call.route.objects)
        if deleted and call.object_id:
            self._objects.discard(call.object_id)

    async def filter(self, call: Call, body: bytes) -> bytes:
        """A list reply without what belongs to other orgs."""
        try:
            page: Any = orjson.loads(body)
        except orjson.JSONDecodeError:
            return body
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            return body
        rows = [row for row in page["data"] if isinstance(row, dict)]
        own = await self._objects.filter_own([str(row.get("id", "")) for row in rows], call.client.org)
        page["data"] = [row for row in rows if str(row.get("id", "")) in own]
        if "first_id" in page:
            page["first_id"] = page["data"][0]["id"] if page["data"] else None
        return orjson.dumps(page)

    @staticmethod
    def _named(call: Call, match: Match) -> list[str]:
        names = list(call.facts.object_ids)
        if match.route.objects and match.id:
            names.append(match.id)
        if match.route.name == "other":
            names += [segment for segment in match.rest.split("/") if _ID.fullmatch(segment) and _has_digit(segment)]
        return names


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)
