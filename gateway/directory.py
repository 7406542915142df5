"""Who a secret belongs to: every client and key of gateway.toml and the database, in one look-up."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.clients import Client, Key
from gateway.clock import Clock

_BLOCK = hashlib.sha256().block_size


class DirectoryError(ValueError):
    """The same client or key stands in gateway.toml and in the database, or twice in one of them."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key and the HMAC-SHA-256 of its secret under the pepper (32 bytes)."""

    key: Key
    digest: bytes


def digest_of(pepper: bytes, secret: bytes) -> bytes:
    """What is kept of a secret."""
    return hmac.digest(pepper, secret, "sha256")


class Directory:
    """Finds the key and client of a secret. Unknown, revoked and expired look alike: None."""

    def __init__(self, pepper: bytes, clock: Clock) -> None:
        self.pepper = pepper
        self._clock = clock
        self._clients: dict[str, Client] = {}
        self._keys: dict[str, KeyEntry] = {}
        self._by_digest: dict[bytes, tuple[Key, Client]] = {}
        # HMAC by RFC 2104 with the pepper's two blocks hashed beforehand: a third of hmac.digest's time.
        block = (pepper if len(pepper) <= _BLOCK else hashlib.sha256(pepper).digest()).ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def find(self, secret: bytes) -> tuple[Key, Client] | None:
        """The key and client of a secret that is valid now. Its time does not depend on how many there are, and only
        a keyed hash of the secret is ever compared."""
        return self.holder(self.digest(secret))

    def digest(self, secret: bytes) -> bytes:
        """The same as `digest_of`, in a third of its time."""
        inner = self._inner.copy()
        inner.update(secret)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def holder(self, digest: bytes) -> tuple[Key, Client] | None:
        """The key and client of a secret's digest, if it is valid now."""
        found = self._by_digest.get(digest)
        if found is None:
            return None
        expires_wall_ns = found[0].expires_wall_ns
        if expires_wall_ns is not None and expires_wall_ns <= self._clock.wall_ns():
            return None
        return found

    def replace(self, clients: Iterable[Client], entries: Iterable[KeyEntry]) -> None:
        """Swaps everything at once (start, reload). Raises DirectoryError and keeps the old on a double id, a double
        secret, or a key of the file without its client."""
        by_id: dict[str, Client] = {}
        for client in clients:
            if client.id in by_id:
                raise DirectoryError(_twice("client", client.id, client.source, by_id[client.id].source))
            by_id[client.id] = client
        keys: dict[str, KeyEntry] = {}
        by_digest: dict[bytes, tuple[Key, Client]] = {}
        for entry in entries:
            key = entry.key
            if key.id in keys:
                raise DirectoryError(_twice("key", key.id, key.source, keys[key.id].key.source))
            if entry.digest in by_digest:
                raise DirectoryError(f"keys {key.id!r} and {by_digest[entry.digest][0].id!r} have the same secret")
            if key.client_id not in by_id:
                if key.source == "database":
                    continue  # made for a client that the file has no more
                raise DirectoryError(f"key {key.id!r} belongs to client {key.client_id!r}, which does not exist")
            keys[key.id] = entry
            by_digest[entry.digest] = key, by_id[key.client_id]
        self._clients, self._keys, self._by_digest = by_id, keys, by_digest

    def client(self, client_id: str) -> Client | None:
        return self._clients.get(client_id)

    def key(self, key_id: str) -> Key | None:
        entry = self._keys.get(key_id)
        return None if entry is None else entry.key

    def clients(self) -> list[Client]:
        return list(self._clients.values())

    def keys(self) -> list[Key]:
        return [entry.key for entry in self._keys.values()]

    def put_client(self, client: Client) -> None:
        """A client made or changed while running; its keys follow."""
        self._clients[client.id] = client
        for entry in self._keys.values():
            if entry.key.client_id == client.id:
                self._by_digest[entry.digest] = entry.key, client

    def drop_client(self, client_id: str) -> None:
        """A client removed while running, with all its keys; an unknown id is ignored."""
        for key in [entry.key for entry in self._keys.values() if entry.key.client_id == client_id]:
            self.drop_key(key.id)
        self._clients.pop(client_id, None)

    def put_key(self, entry: KeyEntry) -> None:
        """A key made or changed (expiry) while running."""
        self._keys[entry.key.id] = entry
        self._by_digest[entry.digest] = entry.key, self._clients[entry.key.client_id]

    def drop_key(self, key_id: str) -> None:
        """A key revoked while running; an unknown id is ignored."""
        entry = self._keys.pop(key_id, None)
        if entry is not None:
            del self._by_digest[entry.digest]


def _twice(what: str, id: str, one: str, other: str) -> str:
    where = {"file": "gateway.toml", "database": "the database"}
    if one == other:
        return f"{what} {id!r} stands twice in {where[one]}"
    command = f"clients remove {id}" if what == "client" else f"keys revoke {id}"
    more = f" (--keep-keys leaves its keys to the file's {id!r})" if what == "client" else ""
    return (
        f"{what} {id!r} stands in gateway.toml and in the database: give it another name in the file, or end the one "
        f"in the database with `tidegate {command}`{more}"
    )
