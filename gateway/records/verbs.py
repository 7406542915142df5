"""What the command line asks of the records: over the admin socket, or here where no gateway runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.clients import BudgetRules, Key, QuotaRules, Scope
from gateway.prices import usd
from gateway.records.keys import ClientInfo, KeyInfo
from gateway.records.queries import UsageRow
from gateway.records.rows import AttemptRow, CallRow

if TYPE_CHECKING:
    from gateway.control.socket import Verb
    from gateway.records.store import Records

_MONEY = "_pusd"


def of(records: Records) -> dict[str, Verb]:
    """The verbs by name; each takes and gives what JSON can hold. Money comes as decimal strings of dollars."""
    keys, queries = records.keys, records.queries

    async def create_client(
        id: str,
        org: str | None = None,
        tier: str = "basic",
        scope: dict[str, Any] | None = None,
        quota: dict[str, Any] | None = None,
        budget: dict[str, Any] | None = None,
    ) -> Any:
        client = await keys.create_client(id, org=org, tier=tier, **_rules(scope=scope, quota=quota, budget=budget))
        return {"id": client.id, "org": client.org, "tier": client.tier.name}

    async def list_clients() -> Any:
        return [_client(info) for info in await keys.list_clients()]

    async def create_key(
        client: str,
        role: str = "client",
        expires_wall_ns: int | None = None,
        scope: dict[str, Any] | None = None,
        quota: dict[str, Any] | None = None,
        budget: dict[str, Any] | None = None,
    ) -> Any:
        made = await keys.create_key(
            client,
            role=role,  # type: ignore[arg-type]  # checked there
            expires_wall_ns=expires_wall_ns,
            **_rules(scope=scope, quota=quota, budget=budget),
        )
        return {**_key(made.key), "secret": made.secret}

    async def list_keys(client: str | None = None) -> Any:
        return [_key_info(info) for info in await keys.list_keys(client)]

    async def rotate_key(id: str, overlap_s: int = 0) -> Any:
        made = await keys.rotate(id, overlap_s)
        return {**_key(made.key), "secret": made.secret}

    async def revoke_key(id: str) -> Any:
        await keys.revoke(id)
        return {"id": id}

    async def usage(
        by: Sequence[str] = ("client",),
        since_wall_ns: int | None = None,
        until_wall_ns: int | None = None,
        filters: dict[str, str] | None = None,
    ) -> Any:
        await records.ledger.flush()
        return [_usage(row) for row in await queries.usage(by, since_wall_ns, until_wall_ns, filters)]

    async def calls(cursor: str = "", limit: int = 100, filters: dict[str, str] | None = None) -> Any:
        await records.ledger.flush()
        page = await queries.calls(cursor, limit, filters)
        return {"rows": [plain(row) for row in page.rows], "cursor": page.cursor}

    async def attempts(call: str) -> Any:
        await records.ledger.flush()
        return [plain(row) for row in await queries.attempts(call)]

    return {
        "clients.create": create_client,
        "clients.list": list_clients,
        "keys.create": create_key,
        "keys.list": list_keys,
        "keys.rotate": rotate_key,
        "keys.revoke": revoke_key,
        "usage": usage,
        "calls": calls,
        "attempts": attempts,
    }


def plain(row: AttemptRow | CallRow) -> dict[str, Any]:
    """A row for JSON: by field name, money as decimal strings of dollars under `..._usd`."""
    return _dollars({name: getattr(row, name) for name in row.__struct_fields__})


def _usage(row: UsageRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in row.__struct_fields__ if name != "group"}
    return {**row.group, **_dollars(values)}


def _dollars(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removesuffix(_MONEY) + "_usd" if name.endswith(_MONEY) else name: (
            usd(value) if name.endswith(_MONEY) else value
        )
        for name, value in values.items()
    }


def _rules(**given: dict[str, Any] | None) -> dict[str, Any]:
    types = {"scope": Scope, "quota": QuotaRules, "budget": BudgetRules}
    return {
        name: None if value is None else msgspec.convert(value, types[name], strict=True)
        for name, value in given.items()
    }


def _client(info: ClientInfo) -> dict[str, Any]:
    rules: dict[str, Any] = msgspec.to_builtins(info.rules)
    known = {"id": info.id, "org": info.org, "tier": info.tier, "source": info.source}
    return {**known, "created_wall_ns": info.created_wall_ns, **rules}


def _key(key: Key) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(key)
    found["client"] = found.pop("client_id")
    return found


def _key_info(info: KeyInfo) -> dict[str, Any]:
    times = {"created_wall_ns": info.created_wall_ns, "revoked_wall_ns": info.revoked_wall_ns}
    return {**_key(info.key), **times}
