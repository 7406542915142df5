"""Clients and keys as rows of the database, and what they become for admission."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from gateway.clients import BudgetRules, Client, Key, QuotaRules, Role, Scope, Tier
from gateway.directory import KeyEntry
from gateway.rates import parse_rate
from gateway.records.database import RecordsError
from gateway.records.schema import clients, keys
from gateway.scopes import not_among, route_names

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Rules(msgspec.Struct):
    """What is stored of a client's or key's own rules."""

    scope: Scope = msgspec.field(default_factory=Scope)
    quota: QuotaRules = msgspec.field(default_factory=QuotaRules)
    budget: BudgetRules = msgspec.field(default_factory=BudgetRules)


class ClientRow(msgspec.Struct):
    """As it stands in the table."""

    id: str
    org: str
    tier: str
    rules: str
    created_wall_ns: int


class KeyRow(msgspec.Struct):
    """As it stands in the table."""

    id: str
    client: str
    role: Role
    digest: str
    hint: str
    rules: str
    created_wall_ns: int
    expires_wall_ns: int | None
    revoked_wall_ns: int | None


class Changes(msgspec.Struct, forbid_unknown_fields=True):
    """What to change of a client; UNSET stays as it is. A scope of None, or with "*" in it, allows everything."""

    tier: str | msgspec.UnsetType = msgspec.UNSET
    models: tuple[str, ...] | msgspec.UnsetType | None = msgspec.UNSET
    routes: tuple[str, ...] | msgspec.UnsetType | None = msgspec.UNSET
    workers: tuple[str, ...] | msgspec.UnsetType | None = msgspec.UNSET
    requests: tuple[str, ...] | msgspec.UnsetType | None = msgspec.UNSET
    tokens: tuple[str, ...] | msgspec.UnsetType | None = msgspec.UNSET
    concurrent: int | msgspec.UnsetType | None = msgspec.UNSET

    def of(self, rules: Rules) -> Rules:
        """The rules with these changes."""
        scope = {
            name: _whole(value) for name in ("models", "routes", "workers") if _is_set(value := getattr(self, name))
        }
        quota = {name: value for name in ("requests", "tokens", "concurrent") if _is_set(value := getattr(self, name))}
        return Rules(replace(rules.scope, **scope), replace(rules.quota, **quota), rules.budget)


def check_rules(rules: Rules) -> None:
    """Raises RecordsError for a route that there is none of, or a rate that can't be read: it would allow nothing, or
    stop the next call."""
    known = route_names()
    for entry in rules.scope.routes or ():
        near = not_among(entry, known)
        if near is not None:
            meant = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
            raise RecordsError(f"there is no route {entry!r}; {meant}")
    for rate in (*(rules.quota.requests or ()), *(rules.quota.tokens or ())):
        try:
            parse_rate(rate)
        except ValueError:
            raise RecordsError(f"{rate!r} is no rate; 600/minute and 1000000/day are") from None
    if rules.quota.concurrent is not None and rules.quota.concurrent < 0:
        raise RecordsError(f"{rules.quota.concurrent} concurrent calls are none that can be")


def _is_set(value: object) -> bool:
    return value is not msgspec.UNSET


def _whole(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if names is None or "*" in names else names


def rows(connection: Connection) -> tuple[list[ClientRow], list[KeyRow]]:
    found = [ClientRow(*row) for row in connection.execute(select(clients).order_by(clients.c.id))]
    return found, [KeyRow(*row) for row in connection.execute(select(keys).order_by(keys.c.id))]


def rules_of(row: ClientRow | KeyRow) -> Rules:
    return msgspec.json.decode(row.rules, type=Rules)


def made_client(row: ClientRow, tier: Tier) -> Client:
    rules = rules_of(row)
    return Client(row.id, row.org, tier, rules.scope, rules.quota, rules.budget, "database")


def entry_of(row: KeyRow) -> KeyEntry:
    rules = rules_of(row)
    key = Key(
        row.id,
        row.client,
        row.role,
        row.hint,
        rules.scope,
        rules.quota,
        rules.budget,
        row.expires_wall_ns,
        "database",
    )
    return KeyEntry(key, bytes.fromhex(row.digest))


def client_values(id: str, org: str | None, tier: str, rules: Rules, now: int) -> dict[str, Any]:
    org = id if org is None else org
    for what, name in (("client id", id), ("org", org)):
        if _ID.fullmatch(name) is None:
            raise RecordsError(f"{what} {name!r}: use up to 64 letters, digits and . _ @ -, beginning with no sign")
    rules_json = msgspec.json.encode(rules).decode()
    return {"id": id, "org": org, "tier": tier, "rules": rules_json, "created_wall_ns": now}


def insert_client(connection: Connection, values: dict[str, Any]) -> None:
    if connection.execute(select(clients.c.id).where(clients.c.id == values["id"])).first() is not None:
        raise RecordsError(f"client {values['id']!r} exists already")
    connection.execute(insert(clients).values(values))


def insert_key(connection: Connection, values: dict[str, Any], client_known: bool) -> None:
    client_id = values["client"]
    if not client_known and connection.execute(select(clients.c.id).where(clients.c.id == client_id)).first() is None:
        raise RecordsError(f"there is no client {client_id!r}; `tidegate clients create {client_id}` makes it")
    if connection.execute(select(keys.c.id).where(keys.c.digest == values["digest"])).first() is not None:
        raise RecordsError("this secret is in use already; choose another")
    connection.execute(insert(keys).values(values))
