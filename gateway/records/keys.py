"""Clients and keys in the database: made, listed, rotated, revoked. Only a key's HMAC is kept."""

from __future__ import annotations

import base64
import os
import re
import secrets
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, insert, select, update

from gateway.clients import BudgetRules, Client, Key, QuotaRules, Role, Scope, Tier
from gateway.clock import Clock
from gateway.directory import Directory, KeyEntry, digest_of
from gateway.ids import Ids
from gateway.records.database import RecordsError
from gateway.records.queries import Queries
from gateway.records.schema import clients, keys
from gateway.records.writer import Writer

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHORTEST_SECRET = 8
_HINT = 4
_NS = 1_000_000_000
_ROLES = ("client", "service", "viewer", "admin")


class Rules(msgspec.Struct):
    """What is stored of a client's or key's own rules."""

    scope: Scope = msgspec.field(default_factory=Scope)
    quota: QuotaRules = msgspec.field(default_factory=QuotaRules)
    budget: BudgetRules = msgspec.field(default_factory=BudgetRules)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the one time its secret is known."""

    key: Key
    secret: str


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as people see it. Times are None where they did not happen."""

    key: Key
    created_wall_ns: int | None
    revoked_wall_ns: int | None


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A client as people see it; `tier` by name, since tiers belong to gateway.toml."""

    id: str
    org: str
    tier: str
    rules: Rules
    created_wall_ns: int | None
    source: str


@dataclass(frozen=True, slots=True)
class FirstKeys:
    """What a first start made; "" for a key that was given or not needed. `path` is the 0600 file they were written
    to, "" when the caller shows them on a terminal instead."""

    admin: str
    client: str
    path: str


class Keys:
    """Verbs over clients and keys; commits with synchronous=FULL, then updates the directory."""

    def __init__(self, writer: Writer, queries: Queries, pepper: bytes, clock: Clock, data_dir: Path) -> None:
        self._writer = writer
        self._queries = queries
        self._pepper = pepper
        self._clock = clock
        self._data_dir = data_dir
        self._ids = Ids()
        self._tiers: Mapping[str, Tier] | None = None
        self._directory: Directory | None = None

    def attach(self, directory: Directory) -> None:
        """What changes from now on changes this directory too; it also tells which clients the file has."""
        self._directory = directory

    async def load(self, tiers: Mapping[str, Tier]) -> tuple[list[Client], list[KeyEntry]]:
        """All valid ones of the database, for `Directory.replace`. Raises RecordsError for a client of a tier that is
        not among these."""
        self._tiers = tiers
        found, entries = await self._queries.read(_rows)
        return [self._client(row) for row in found], [_entry(row) for row in entries if row.revoked_wall_ns is None]

    async def first_keys(self, *, terminal: bool | None = None, taken: Collection[str] = ()) -> FirstKeys | None:
        """At the first start: client "admin" with an admin key, client "default" with a client key, unless `taken`
        (ids in gateway.toml) has them. TIDEGATE_ADMIN_KEY and TIDEGATE_CLIENT_KEY are used instead of new secrets.
        Without a terminal (None: as standard error is), new ones are written to data_dir/first-keys.txt. None at later
        starts, and where nothing has to be shown."""
        found, _ = await self._queries.read(_rows)
        if found:
            return None
        made: dict[Role, str] = {"admin": "", "client": ""}
        chosen: list[tuple[str, Role, str]] = []
        wanted: tuple[tuple[str, Role, str], ...] = (
            ("admin", "admin", "TIDEGATE_ADMIN_KEY"),
            ("default", "client", "TIDEGATE_CLIENT_KEY"),
        )
        for client_id, role, variable in wanted:
            if client_id in taken:
                continue
            given = os.environ.get(variable, "")
            secret = _strong(given, variable) if given else new_secret()
            made[role] = "" if given else secret
            chosen.append((client_id, role, secret))
        shown = sys.stderr.isatty() if terminal is None else terminal
        path = "" if shown or not any(made.values()) else self._write_first(made)
        await self._writer.run(lambda connection: self._insert_first(connection, chosen))
        return FirstKeys(made["admin"], made["client"], path) if any(made.values()) else None

    async def create_client(
        self,
        id: str,
        *,
        org: str | None = None,
        tier: str = "basic",
        scope: Scope | None = None,
        quota: QuotaRules | None = None,
        budget: BudgetRules | None = None,
    ) -> Client:
        """Raises RecordsError for an id that is taken, in the database or in gateway.toml, or an unknown tier."""
        if self._directory is not None and self._directory.client(id) is not None:
            raise RecordsError(f"client {id!r} exists already")
        if self._tiers is not None and tier not in self._tiers:
            raise RecordsError(f"there is no tier {tier!r}; gateway.toml has {', '.join(sorted(self._tiers))}")
        rules = Rules(scope or Scope(), quota or QuotaRules(), budget or BudgetRules())
        values = _client_values(id, org, tier, rules, self._clock.wall_ns())
        await self._writer.run(lambda connection: _insert_client(connection, values))
        row = msgspec.convert(values, _ClientRow)
        client = self._client(row) if self._tiers is not None else _made_client(row, Tier(tier))
        if self._directory is not None:
            self._directory.put_client(client)
        return client

    async def list_clients(self) -> list[ClientInfo]:
        """Those of the database, then those of the file."""
        found, _ = await self._queries.read(_rows)
        infos = [ClientInfo(row.id, row.org, row.tier, _rules(row), row.created_wall_ns, "database") for row in found]
        for client in self._directory.clients() if self._directory is not None else ():
            if client.source == "file":
                rules = Rules(client.scope, client.quota, client.budget)
                infos.append(ClientInfo(client.id, client.org, client.tier.name, rules, None, "file"))
        return infos

    async def create_key(
        self,
        client_id: str,
        *,
        role: Role = "client",
        scope: Scope | None = None,
        quota: QuotaRules | None = None,
        budget: BudgetRules | None = None,
        expires_wall_ns: int | None = None,
        secret: str | None = None,
    ) -> NewKey:
        """Raises RecordsError for an unknown client or role."""
        if role not in _ROLES:
            raise RecordsError(f"there is no role {role!r}, only {', '.join(_ROLES)}")
        rules = Rules(scope or Scope(), quota or QuotaRules(), budget or BudgetRules())
        secret = new_secret() if secret is None else _strong(secret, "the secret")
        values = self._key_values(client_id, role, rules, secret, expires_wall_ns)
        in_file = self._directory is not None and self._directory.client(client_id) is not None
        await self._writer.run(lambda connection: _insert_key(connection, values, in_file))
        return NewKey(self._put(values), secret)

    async def list_keys(self, client_id: str | None = None) -> list[KeyInfo]:
        """Those of the database, revoked ones too, then those of the file."""
        _, entries = await self._queries.read(_rows)
        infos = [KeyInfo(_entry(row).key, row.created_wall_ns, row.revoked_wall_ns) for row in entries]
        if self._directory is not None:
            infos += [KeyInfo(key, None, None) for key in self._directory.keys() if key.source == "file"]  # noqa: SIM118 (ours, no dict's)
        return [info for info in infos if client_id is None or info.key.client_id == client_id]

    async def rotate(self, key_id: str, overlap_s: int = 0) -> NewKey:
        """A new key with the old one's rights; the old one ends after `overlap_s` seconds. Raises RecordsError."""
        old = await self._valid(key_id)
        secret = new_secret()
        values = self._key_values(old.client, old.role, _rules(old), secret, old.expires_wall_ns)
        ends = self._clock.wall_ns() + overlap_s * _NS
        if old.expires_wall_ns is not None:
            ends = min(ends, old.expires_wall_ns)

        def change(connection: Connection) -> None:
            _insert_key(connection, values, True)
            end = {"expires_wall_ns": ends} if overlap_s > 0 else {"revoked_wall_ns": ends}
            connection.execute(update(keys).where(keys.c.id == key_id).values(end))

        await self._writer.run(change)
        if self._directory is not None:
            if overlap_s > 0:
                self._directory.put_key(_entry(msgspec.structs.replace(old, expires_wall_ns=ends)))
            else:
                self._directory.drop_key(key_id)
        return NewKey(self._put(values), secret)

    async def revoke(self, key_id: str) -> None:
        """Ends a key now. Raises RecordsError for an unknown or revoked one, or one of the file."""
        await self._valid(key_id)
        ended = {"revoked_wall_ns": self._clock.wall_ns()}
        await self._writer.run(
            lambda connection: connection.execute(update(keys).where(keys.c.id == key_id).values(ended))
        )
        if self._directory is not None:
            self._directory.drop_key(key_id)

    async def _valid(self, key_id: str) -> _KeyRow:
        in_directory = None if self._directory is None else self._directory.key(key_id)
        if in_directory is not None and in_directory.source == "file":
            raise RecordsError(f"key {key_id!r} stands in gateway.toml: change it there")
        _, entries = await self._queries.read(_rows)
        for row in entries:
            if row.id == key_id and row.revoked_wall_ns is None:
                return row
        raise RecordsError(f"there is no valid key {key_id!r}; `tidegate keys list` shows them")

    def _client(self, row: _ClientRow) -> Client:
        tier = (self._tiers or {}).get(row.tier)
        if tier is None:
            raise RecordsError(
                f"client {row.id!r} in the database has tier {row.tier!r}, which gateway.toml does not define: "
                f"add [tiers.{row.tier}]"
            )
        return _made_client(row, tier)

    def _key_values(
        self, client_id: str, role: str, rules: Rules, secret: str, expires_wall_ns: int | None
    ) -> dict[str, Any]:
        now = self._clock.wall_ns()
        return {
            "id": self._ids.new(now),
            "client": client_id,
            "role": role,
            "digest": digest_of(self._pepper, secret.encode()).hex(),
            "hint": secret[-_HINT:],
            "rules": msgspec.json.encode(rules).decode(),
            "created_wall_ns": now,
            "expires_wall_ns": expires_wall_ns,
            "revoked_wall_ns": None,
        }

    def _put(self, values: dict[str, Any]) -> Key:
        entry = _entry(msgspec.convert(values, _KeyRow))
        if self._directory is not None and self._directory.client(entry.key.client_id) is not None:
            self._directory.put_key(entry)
        return entry.key

    def _insert_first(self, connection: Connection, chosen: list[tuple[str, Role, str]]) -> None:
        for client_id, role, secret in chosen:
            # Room for whoever tries it out: the tier's five calls at once are for clients made on purpose.
            rules = Rules(quota=QuotaRules(concurrent=100))
            _insert_client(connection, _client_values(client_id, None, "basic", rules, self._clock.wall_ns()))
            _insert_key(connection, self._key_values(client_id, role, Rules(), secret, None), True)

    def _write_first(self, made: Mapping[Role, str]) -> str:
        """Before the commit: a key that nobody could read would be worse than a file about a start that failed."""
        path = self._data_dir / "first-keys.txt"
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.writelines(f"{role} key: {secret}\n" for role, secret in made.items() if secret)
        structlog.get_logger().info("first keys written; read them, then delete the file", path=str(path))
        return str(path)


class _ClientRow(msgspec.Struct):
    id: str
    org: str
    tier: str
    rules: str
    created_wall_ns: int


class _KeyRow(msgspec.Struct):
    id: str
    client: str
    role: Role
    digest: str
    hint: str
    rules: str
    created_wall_ns: int
    expires_wall_ns: int | None
    revoked_wall_ns: int | None


def new_secret() -> str:
    """256 random bits, to be shown once."""
    return "tg-" + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()


def _strong(secret: str, where: str) -> str:
    if len(secret) < _SHORTEST_SECRET or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise RecordsError(f"{where} must be at least {_SHORTEST_SECRET} visible ASCII characters")
    return secret


def _rows(connection: Connection) -> tuple[list[_ClientRow], list[_KeyRow]]:
    found = [_ClientRow(*row) for row in connection.execute(select(clients).order_by(clients.c.id))]
    return found, [_KeyRow(*row) for row in connection.execute(select(keys).order_by(keys.c.id))]


def _rules(row: _ClientRow | _KeyRow) -> Rules:
    return msgspec.json.decode(row.rules, type=Rules)


def _made_client(row: _ClientRow, tier: Tier) -> Client:
    rules = _rules(row)
    return Client(row.id, row.org, tier, rules.scope, rules.quota, rules.budget, "database")


def _entry(row: _KeyRow) -> KeyEntry:
    rules = _rules(row)
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


def _client_values(id: str, org: str | None, tier: str, rules: Rules, now: int) -> dict[str, Any]:
    org = id if org is None else org
    for what, name in (("client id", id), ("org", org)):
        if _ID.fullmatch(name) is None:
            raise RecordsError(f"{what} {name!r}: use up to 64 letters, digits and . _ @ -, beginning with no sign")
    rules_json = msgspec.json.encode(rules).decode()
    return {"id": id, "org": org, "tier": tier, "rules": rules_json, "created_wall_ns": now}


def _insert_client(connection: Connection, values: dict[str, Any]) -> None:
    if connection.execute(select(clients.c.id).where(clients.c.id == values["id"])).first() is not None:
        raise RecordsError(f"client {values['id']!r} exists already")
    connection.execute(insert(clients).values(values))


def _insert_key(connection: Connection, values: dict[str, Any], client_known: bool) -> None:
    client_id = values["client"]
    if not client_known and connection.execute(select(clients.c.id).where(clients.c.id == client_id)).first() is None:
        raise RecordsError(f"there is no client {client_id!r}; `tidegate clients create {client_id}` makes it")
    if connection.execute(select(keys.c.id).where(keys.c.digest == values["digest"])).first() is not None:
        raise RecordsError("this secret is in use already; choose another")
    connection.execute(insert(keys).values(values))
