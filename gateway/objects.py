"""The wall around what providers store: files, batches, responses belong to the org that made them (TERMS 12)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.call import Call
from gateway.errors import NotFound
from gateway.objectids import in_json, in_query, looks_like_id
from gateway.records.objects import ObjectRow, Objects
from gateway.routes import Match

#: Routes whose request can't name a stored object: their bodies are not searched.
_PLAIN = frozenset({"completions", "embeddings", "moderations", "worker"})

#: Files that a provider makes for an object belong to whom the object belongs to.
_MADE = ("output_file_id", "error_file_id")


class ObjectWall:
    """Checks the ids that a call names, remembers those that its reply made, filters lists.

    What stands where an id has to stand (in the path, under a key that is known to name an object) must be the org's
    own. Whatever else looks like an id, under any key, must not be another org's.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def check(self, call: Call, match: Match, more: Iterable[str] = ()) -> str:
        """The provider that holds an object named by the path or body, or "". `more` ids may be named elsewhere. Raises
        NotFound for others'."""
        wanted, suspects = _wanted(call, match), [*_suspects(call, match), *more]
        if not wanted and not suspects:
            return ""
        segments = match.rest.split("/") if match.route.name == "other" else []
        owners = await self._objects.owners({*wanted, *suspects})
        _refuse([id for id, owner in owners.items() if _is_foreign(call, owner)])
        _refuse([id for id in wanted if owners[id] is None])
        call.object_id = match.id if match.route.objects else ""
        holder = ""
        for id in (*wanted, *segments):
            owner = owners[id]
            if owner is not None:
                holder = holder or owner.provider
                call.object_id = id if id in segments else call.object_id
            elif not holder and looks_like_id(id):
                _refuse([id])  # below an object of the org's own, the provider knows what belongs to it
        return holder

    async def check_more(self, call: Call, suspects: Iterable[str]) -> None:
        """Ids that came while the body was passed on. Raises NotFound for others'."""
        owners = await self._objects.owners(set(suspects))
        _refuse([id for id, owner in owners.items() if _is_foreign(call, owner)])

    def learn(self, call: Call, made: Iterable[str], provider: str, deleted: bool) -> None:
        """From a reply: objects that it made belong to the caller's org, one that was deleted to nobody."""
        for one in made:
            if one != call.object_id:
                self._objects.add(one, call.client.org, call.client.id, provider, call.route.objects)
        if deleted and call.object_id and call.path.endswith(call.object_id.encode()):
            self._objects.discard(call.object_id)

    async def own(self, call: Call, rows: list[Any], provider: str) -> list[Any]:
        """The rows of a list without what belongs to other orgs, or to nobody known."""
        ids = [_id_of(row) for row in rows]
        owners = await self._objects.owners({id for id in ids if id})
        kept = []
        for id, row in zip(ids, rows, strict=True):
            owner = owners.get(id)
            if owner is not None and owner.org == call.client.org:
                self.learn(call, [row[name] for name in _MADE if isinstance(row.get(name), str)], provider, False)
                kept.append(row)
            elif owner is None and call.route.name == "other" and not looks_like_id(id):
                kept.append(row)  # voices, prices, ...: nobody's object
        return kept


def _wanted(call: Call, match: Match) -> list[str]:
    """Ids that must be the org's own."""
    names = list(call.facts.object_ids)
    if match.id and match.route.objects:
        names.append(match.id)
    return names


def _suspects(call: Call, match: Match) -> list[str]:
    """What may be an id elsewhere."""
    name = match.route.name
    if name in _PLAIN:
        return []
    found = in_query(call.query) if call.query else []
    if call.body:
        found += in_json(call.body, uuids=not match.route.model)
    if name == "other" or (match.rest and match.route.objects):
        found += match.rest.split("/")
    return found


def _is_foreign(call: Call, owner: ObjectRow | None) -> bool:
    return owner is not None and owner.org != call.client.org


def _refuse(ids: list[str]) -> None:
    if ids:
        raise NotFound(f"No such object: {ids[0][:200]}. It does not exist, or it belongs to another org.")


def _id_of(row: Any) -> str:
    id = row.get("id") if isinstance(row, dict) else None
    return id if isinstance(id, str) else ""
