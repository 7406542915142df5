"""Clients and keys in the database: made, listed, changed, rotated, ended. Only a key's HMAC is kept."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, update

from gateway.clients import BudgetRules, Client, Key, QuotaRules, Role, Scope, Tier
from gateway.clock import Clock
from gateway.directory import Directory, KeyEntry, digest_of
from gateway.ids import Ids
from gateway.records.database import RecordsError
from gateway.records.first import Chosen, FirstKeys, chosen, written
from gateway.records.people import (
    Changes,
    ClientRow,
    KeyRow,
    Rules,
    check_rules,
    client_values,
    entry_of,
    insert_client,
    insert_key,
    made_client,
    rows,
    rules_of,
)
from gateway.records.queries import Queries
from gateway.records.schema import clients, keys
from gateway.records.writer import Writer
from gateway.scopes import ScopeNames
from gateway.secret import WANTED, is_fit, new_secret

_HINT = 4
_NS = 1_000_000_000
_ROLES = ("client", "service", "viewer", "admin")


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
class Ended:
    """The keys of a client that were revoked, and those of gateway.toml, which only a change of that file ends."""

    revoked: list[str]
    in_file: list[str]


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
        self._names: ScopeNames | None = None
        self._directory: Directory | None = None

    def attach(self, directory: Directory) -> None:
        """What changes from now on changes this directory too; it also tells which clients the file has."""
        self._directory = directory

    def know(self, tiers: Mapping[str, Tier], names: ScopeNames) -> None:
        """What the configuration has: clients need one of the tiers, scopes should name what there is."""
        self._tiers, self._names = tiers, names

    async def load(self, tiers: Mapping[str, Tier]) -> tuple[list[Client], list[KeyEntry]]:
        """All valid ones of the database, for `Directory.replace`. Raises RecordsError for clients of tiers that are
        not among these."""
        found, entries = await self._queries.read(rows)
        lost = [row for row in found if row.tier not in tiers]
        if lost:
            raise RecordsError(" ".join(tier_lost(row.id, row.tier) for row in lost))
        self._tiers = tiers
        return [self._client(row) for row in found], [entry_of(row) for row in entries if row.revoked_wall_ns is None]

    async def first_keys(
        self, *, terminal: bool | None = None, taken: Collection[str] = (), digests: Collection[bytes] = ()
    ) -> FirstKeys | None:
        """At the first start: client "admin" with an admin key, client "default" with a client key, unless `taken`
        (ids in gateway.toml) has them. TIDEGATE_ADMIN_KEY and TIDEGATE_CLIENT_KEY are used instead of new secrets,
        unless they are keys of the file (`digests`). Without a terminal (None: as standard error is), new ones are
        written to data_dir/first-keys.txt. None at later starts, and where nothing has to be shown."""
        found, _ = await self._queries.read(rows)
        if found:
            return None
        wanted = chosen(taken)
        for one in wanted:
            if digest_of(self._pepper, one.secret.encode()) in digests:
                raise RecordsError(f"{one.variable} is the secret of a key in gateway.toml too. Give each its own")
        made: dict[Role, str] = {one.role: "" if one.is_given else one.secret for one in wanted}
        shown = sys.stderr.isatty() if terminal is None else terminal
        path = "" if shown or not any(made.values()) else written(self._data_dir, made)
        await self._writer.run(lambda connection: self._insert_first(connection, wanted))
        if not any(made.values()):
            return None
        return FirstKeys(made.get("admin", ""), made.get("client", ""), path)

    def strangers(self, scope: Scope) -> list[str]:
        """Sentences about names in a scope that the configuration does not have."""
        return [] if self._names is None else list(self._names.strangers(scope))

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
        self._check_tier(tier)
        rules = Rules(scope or Scope(), quota or QuotaRules(), budget or BudgetRules())
        check_rules(rules)
        values = client_values(id, org, tier, rules, self._clock.wall_ns())
        await self._writer.run(lambda connection: insert_client(connection, values))
        return self._put_client(msgspec.convert(values, ClientRow))

    async def edit_client(self, id: str, changes: Changes) -> Client:
        """Other rules from the next call on. Raises RecordsError for an unknown client, or one of the file."""
        row = await self._client_row(id)
        rules = changes.of(rules_of(row))
        tier = row.tier if changes.tier is msgspec.UNSET else changes.tier
        self._check_tier(tier)
        check_rules(rules)
        values = {"tier": tier, "rules": msgspec.json.encode(rules).decode()}
        await self._change(update(clients).where(clients.c.id == id).values(values))
        return self._put_client(msgspec.structs.replace(row, **values))

    async def revoke_client(self, id: str) -> Ended:
        """Ends all its keys that stand in the database. Raises RecordsError for an unknown client."""
        ended = await self._keys_of(id)
        await self._change(self._revoked(ended))
        self._drop(ended)
        in_file = [] if self._directory is None else self._directory.keys()
        return Ended(ended, [key.id for key in in_file if key.client_id == id and key.source == "file"])

    async def rotate_client(self, id: str, overlap_s: int = 0) -> list[NewKey]:
        """A new key in place of each of its keys in the database; the old ones end after `overlap_s` seconds. Raises
        RecordsError where it has none."""
        old = await self._keys_of(id)
        if not old:
            raise RecordsError(f"client {id!r} has no key in the database; `tidegate keys create {id}` makes one")
        return await self._rotate(old, overlap_s)

    async def remove_client(self, id: str, *, keep_keys: bool = False) -> Ended:
        """Deletes it from the database; what it did stays in the ledger. Its keys end, unless `keep_keys` leaves them
        to the client of that id in gateway.toml. Raises RecordsError for one that the database does not have."""
        await self._client_row(id, "remove it")
        in_file = self._directory is not None and self._directory.client(id)
        if keep_keys and not (in_file and in_file.source == "file"):
            raise RecordsError(f"gateway.toml has no client {id!r} that could keep the keys")
        ended = [] if keep_keys else await self._keys_of(id)
        await self._change(self._revoked(ended), delete(clients).where(clients.c.id == id))
        self._drop(ended)
        if self._directory is not None and in_file and in_file.source == "database":
            self._directory.drop_client(id)
        return Ended(ended, [])

    async def list_clients(self) -> list[ClientInfo]:
        """Those of the database, then those of the file."""
        found, _ = await self._queries.read(rows)
        infos = [ClientInfo(row.id, row.org, row.tier, rules_of(row), row.created_wall_ns, "database") for row in found]
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
        """Raises RecordsError for an unknown client or role, or a time that is over."""
        if role not in _ROLES:
            raise RecordsError(f"there is no role {role!r}, only {', '.join(_ROLES)}")
        if secret is not None and not is_fit(secret):
            raise RecordsError(f"the secret must be {WANTED}")
        if expires_wall_ns is not None and expires_wall_ns <= self._clock.wall_ns():
            raise RecordsError("the key would expire before it could be used")
        rules = Rules(scope or Scope(), quota or QuotaRules(), budget or BudgetRules())
        check_rules(rules)
        secret = new_secret() if secret is None else secret
        values = self._key_values(client_id, role, rules, secret, expires_wall_ns)
        in_file = self._directory is not None and self._directory.client(client_id) is not None
        await self._writer.run(lambda connection: insert_key(connection, values, in_file))
        return NewKey(self._put(values), secret)

    async def list_keys(self, client_id: str | None = None) -> list[KeyInfo]:
        """Those of the database, revoked ones too, then those of the file."""
        _, entries = await self._queries.read(rows)
        infos = [KeyInfo(entry_of(row).key, row.created_wall_ns, row.revoked_wall_ns) for row in entries]
        if self._directory is not None:
            infos += [KeyInfo(key, None, None) for key in self._directory.keys() if key.source == "file"]  # noqa: SIM118 (ours, no dict's)
        return [info for info in infos if client_id is None or info.key.client_id == client_id]

    async def rotate(self, key_id: str, overlap_s: int = 0) -> NewKey:
        """A new key with the old one's rights; the old one ends after `overlap_s` seconds. Raises RecordsError."""
        await self._valid(key_id)
        return (await self._rotate([key_id], overlap_s))[0]

    async def revoke(self, key_id: str) -> None:
        """Ends a key now. Raises RecordsError for an unknown or revoked one, or one of the file."""
        await self._valid(key_id)
        await self._change(self._revoked([key_id]))
        self._drop([key_id])

    async def _rotate(self, ids: list[str], overlap_s: int) -> list[NewKey]:
        """All of them or none."""
        _, entries = await self._queries.read(rows)
        old = [row for row in entries if row.id in ids]
        until = self._clock.wall_ns() + overlap_s * _NS
        ends = {row.id: until if row.expires_wall_ns is None else min(until, row.expires_wall_ns) for row in old}
        made = []
        for row in old:
            secret = new_secret()
            made.append((self._key_values(row.client, row.role, rules_of(row), secret, row.expires_wall_ns), secret))
        column = "expires_wall_ns" if overlap_s > 0 else "revoked_wall_ns"

        def change(connection: Connection) -> None:
            for values, _ in made:
                insert_key(connection, values, True)
            for key_id, end in ends.items():
                connection.execute(update(keys).where(keys.c.id == key_id).values({column: end}))

        await self._writer.run(change)
        if overlap_s == 0:
            self._drop(ids)
        elif self._directory is not None:
            for row in old:
                if self._directory.client(row.client) is not None:
                    self._directory.put_key(entry_of(msgspec.structs.replace(row, expires_wall_ns=ends[row.id])))
        return [NewKey(self._put(values), secret) for values, secret in made]

    async def _valid(self, key_id: str) -> KeyRow:
        in_directory = None if self._directory is None else self._directory.key(key_id)
        if in_directory is not None and in_directory.source == "file":
            raise RecordsError(f"key {key_id!r} stands in gateway.toml: change it there")
        _, entries = await self._queries.read(rows)
        row = next((row for row in entries if row.id == key_id), None)
        if row is None:
            raise RecordsError(f"there is no key {key_id!r}; `tidegate keys list` shows them")
        if row.revoked_wall_ns is not None:
            raise RecordsError(f"key {key_id!r} is revoked already")
        return row

    async def _client_row(self, id: str, change: str = "change it") -> ClientRow:
        """Raises RecordsError unless the database has this client."""
        found, _ = await self._queries.read(rows)
        row = next((row for row in found if row.id == id), None)
        if row is not None:
            return row
        raise self._no_such(id, change)

    def _no_such(self, id: str, change: str) -> RecordsError:
        known = None if self._directory is None else self._directory.client(id)
        if known is not None and known.source == "file":
            return RecordsError(f"client {id!r} stands in gateway.toml: {change} there")
        return RecordsError(f"there is no client {id!r}; `tidegate clients list` shows them")

    async def _keys_of(self, id: str) -> list[str]:
        """The ids of a client's keys in the database that are not revoked. Raises RecordsError for no such client."""
        found, entries = await self._queries.read(rows)
        if id not in [row.id for row in found] and (self._directory is None or self._directory.client(id) is None):
            raise self._no_such(id, "change it")
        return [row.id for row in entries if row.client == id and row.revoked_wall_ns is None]

    def _revoked(self, ids: list[str]) -> Any:
        return update(keys).where(keys.c.id.in_(ids)).values({"revoked_wall_ns": self._clock.wall_ns()})

    async def _change(self, *statements: Any) -> None:
        """One transaction."""

        def run(connection: Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        await self._writer.run(run)

    def _drop(self, ids: list[str]) -> None:
        for key_id in ids if self._directory is not None else ():
            self._directory.drop_key(key_id)  # type: ignore[union-attr]  # looked at in the line above

    def _check_tier(self, tier: str) -> None:
        if self._tiers is not None and tier not in self._tiers:
            raise RecordsError(f"there is no tier {tier!r}; gateway.toml has {', '.join(sorted(self._tiers))}")

    def _client(self, row: ClientRow) -> Client:
        return made_client(row, (self._tiers or {}).get(row.tier, Tier(row.tier)))

    def _put_client(self, row: ClientRow) -> Client:
        client = self._client(row)
        if self._directory is not None:
            self._directory.put_client(client)
        return client

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
        entry = entry_of(msgspec.convert(values, KeyRow))
        if self._directory is not None and self._directory.client(entry.key.client_id) is not None:
            self._directory.put_key(entry)
        return entry.key

    def _insert_first(self, connection: Connection, wanted: list[Chosen]) -> None:
        for one in wanted:
            # Room for whoever tries it out: the tier's five calls at once are for clients made on purpose.
            rules = Rules(quota=QuotaRules(concurrent=100))
            insert_client(connection, client_values(one.client_id, None, "basic", rules, self._clock.wall_ns()))
            values = self._key_values(one.client_id, one.role, Rules(), one.secret, None)
            insert_key(connection, values, True)


def tier_lost(client_id: str, tier: str) -> str:
    """Why the gateway can't start, and both ways out."""
    return (
        f"client {client_id!r} in the database has tier {tier!r}, which gateway.toml does not define: "
        f"add [tiers.{tier}], or move it with `tidegate clients edit {client_id} --tier basic`."
    )
