"""Who a secret belongs to: every client and key of gateway.toml and the database, in one look-up."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.clients import Client, Key
from gateway.clock import Clock


class DirectoryError(ValueError):
    """The same client or key id stands in gateway.toml and in the database, or twice in one of them."""


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

    def replace(self, clients: Iterable[Client], entries: Iterable[KeyEntry]) -> None:
        """Swaps everything at once (start, reload). Raises DirectoryError and keeps the old on a double id."""
        raise NotImplementedError

    def find(self, secret: bytes) -> tuple[Key, Client] | None:
        raise NotImplementedError

    def client(self, client_id: str) -> Client | None:
        raise NotImplementedError

    def key(self, key_id: str) -> Key | None:
        raise NotImplementedError

    def clients(self) -> list[Client]:
        raise NotImplementedError

    def keys(self) -> list[Key]:
        raise NotImplementedError

    def put_client(self, client: Client) -> None:
        """A client made or changed while running."""
        raise NotImplementedError

    def put_key(self, entry: KeyEntry) -> None:
        """A key made or changed (expiry) while running."""
        raise NotImplementedError

    def drop_key(self, key_id: str) -> None:
        """A key revoked while running; an unknown id is ignored."""
        raise NotImplementedError
