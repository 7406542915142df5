"""What the command line asks of the records: over the admin socket, or here where no gateway runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.clients import BudgetRules, Client, Key, QuotaRules, Scope
from gateway.prices import usd
from gateway.records.database import RecordsError
from gateway.records.keys import ClientInfo, KeyInfo
from gateway.records.ledger import READ_PATIENCE_S
from gateway.records.people import Changes
from gateway.records.queries import UsageRow
from gateway.records.rows import AttemptRow, CallRow

if TYPE_CHECKING:
    from gateway.control.socket import Verb
    from gateway.records.store import Records

_MONEY, _INSTANT = "_pusd", "_wall_ns"


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
        rules = _rules(scope=scope, quota=quota, budget=budget)
        client = await keys.create_client(id, org=org, tier=tier, **rules)
        return _with_warnings(_short(client), keys.strangers(client.scope))

    async def edit_client(id: str, changes: dict[str, Any]) -> Any:
        client = await keys.edit_client(id, msgspec.convert(changes, Changes))
        return _with_warnings(_short(client), keys.strangers(client.scope))

    async def revoke_client(id: str) -> Any:
        ended = await keys.revoke_client(id)
        return {"id": id, "revoked": ended.revoked, "in_file": ended.in_file}

    async def rotate_client(id: str, overlap_s: int = 0) -> Any:
        return [{**_key(made.key), "secret": made.secret} for made in await keys.rotate_client(id, overlap_s)]

    async def remove_client(id: str, keep_keys: bool = False) -> Any:
        ended = await keys.remove_client(id, keep_keys=keep_keys)
        return {"id": id, "revoked": ended.revoked}

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
        return _with_warnings({**_key(made.key), "secret": made.secret}, keys.strangers(made.key.scope))

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
        await records.ledger.flush(READ_PATIENCE_S)
        return [_usage(row) for row in await queries.usage(by, since_wall_ns, until_wall_ns, filters)]

    async def calls(cursor: str = "", limit: int = 100, filters: dict[str, str] | None = None) -> Any:
        await records.ledger.flush(READ_PATIENCE_S)
        page = await queries.calls(cursor, limit, filters)
        return {"rows": [plain(row) for row in page.rows], "cursor": page.cursor}

    async def call(id: str) -> Any:
        await records.ledger.flush(READ_PATIENCE_S)
        found, attempts = await queries.call(id), await queries.attempts(id)
        if found is None and not attempts:
            raise RecordsError(f"there is no call {id!r}; `tidegate usage --calls` shows the newest")
        return {"call": None if found is None else plain(found), "attempts": [plain(row) for row in attempts]}

    return {
        "clients.create": create_client,
        "clients.list": list_clients,
        "clients.edit": edit_client,
        "clients.revoke": revoke_client,
        "clients.rotate": rotate_client,
        "clients.remove": remove_client,
        "keys.create": create_key,
        "keys.list": list_keys,
        "keys.rotate": rotate_key,
        "keys.revoke": revoke_key,
        "usage": usage,
        "calls": calls,
        "call": call,
    }


def plain(row: AttemptRow | CallRow) -> dict[str, Any]:
    """A row for JSON: by field name; money as decimal strings of dollars under `..._usd`, instants as RFC 3339."""
    return outside({name: getattr(row, name) for name in row.__struct_fields__})


def outside(values: Mapping[str, Any]) -> dict[str, Any]:
    """What leaves the process says dollars and instants, not pico-dollars and nanoseconds: `x_pusd` becomes `x_usd`,
    a decimal string, and `x_wall_ns` becomes `x`, in RFC 3339. Tables inside are changed likewise."""
    return dict(_said(name, value) for name, value in values.items())


def _said(name: str, value: Any) -> tuple[str, Any]:
    if name.endswith(_MONEY):
        return name.removesuffix(_MONEY) + "_usd", None if value is None else usd(value)
    if name.endswith(_INSTANT):
        return name.removesuffix(_INSTANT), None if value is None else instant(value)
    return name, outside(value) if isinstance(value, Mapping) else value


def instant(wall_ns: int) -> str:
    """RFC 3339 in UTC, to the microsecond where it has a fraction."""
    seconds, rest_ns = divmod(wall_ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest_ns // 1000:06d}Z" if rest_ns // 1000 else f"{text}Z"


def _usage(row: UsageRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in row.__struct_fields__ if name != "group"}
    return {**row.group, **outside(values)}


def _rules(**given: dict[str, Any] | None) -> dict[str, Any]:
    types = {"scope": Scope, "quota": QuotaRules, "budget": BudgetRules}
    return {
        name: None if value is None else msgspec.convert(value, types[name], strict=True)
        for name, value in given.items()
    }


def _short(client: Client) -> dict[str, Any]:
    return {"id": client.id, "org": client.org, "tier": client.tier.name}


def _with_warnings(made: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    return {**made, "warnings": warnings} if warnings else made


def _client(info: ClientInfo) -> dict[str, Any]:
    known = {"id": info.id, "org": info.org, "tier": info.tier, "source": info.source}
    return outside({**known, "created_wall_ns": info.created_wall_ns, **msgspec.to_builtins(info.rules)})


def _key(key: Key) -> dict[str, Any]:
    found: dict[str, Any] = outside(msgspec.to_builtins(key))
    found["client"] = found.pop("client_id")
    return found


def _key_info(info: KeyInfo) -> dict[str, Any]:
    times = {"created_wall_ns": info.created_wall_ns, "revoked_wall_ns": info.revoked_wall_ns}
    return {**_key(info.key), **outside(times)}
