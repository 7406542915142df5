"""Clients and keys in the database: made, listed, rotated, revoked. Only a key's HMAC is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.clients import BudgetRules, Client, Key, QuotaRules, Role, Scope, Tier
from gateway.directory import KeyEntry


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the one time its secret is known."""

    key: Key
    secret: str


@dataclass(frozen=True, slots=True)
class FirstKeys:
    """What a first start made. `path` is the 0600 file they were written to, "" when shown on a terminal instead."""

    admin: str
    client: str
    path: str


class Keys:
    """Verbs over clients and keys; commits with synchronous=FULL, then updates the directory."""

    async def load(self, tiers: Mapping[str, Tier]) -> tuple[list[Client], list[KeyEntry]]:
        """All of the database, for `Directory.replace`; clients of an unknown tier raise RecordsError."""
        raise NotImplementedError

    async def first_keys(self) -> FirstKeys | None:
        """At the first start: client "admin" with an admin key, client "default" with a client key. None later on."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def list_clients(self) -> list[Client]:
        raise NotImplementedError

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
        raise NotImplementedError

    async def list_keys(self, client_id: str | None = None) -> list[Key]:
        raise NotImplementedError

    async def rotate(self, key_id: str, overlap_s: int = 0) -> NewKey:
        """A new key with the old one's rights; the old one ends after `overlap_s` seconds."""
        raise NotImplementedError

    async def revoke(self, key_id: str) -> None:
        raise NotImplementedError
