"""Who a secret belongs to: one answer for unknown, revoked and expired, at one cost."""

from __future__ import annotations

import hmac
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clients import Client, Key, Tier
from gateway.clock import ManualClock
from gateway.directory import Directory, DirectoryError, KeyEntry, digest_of

PEPPER = b"a pepper of some length, for tests"


def people(count: int, source: Any = "database") -> tuple[list[Client], list[KeyEntry]]:
    clients = [Client(f"client-{n}", f"org-{n}", Tier("basic"), source=source) for n in range(count)]
    entries = [
        KeyEntry(Key(f"key-{n}", f"client-{n}", "client", source=source), digest_of(PEPPER, f"secret-{n}".encode()))
        for n in range(count)
    ]
    return clients, entries


@pytest.fixture
def directory() -> Directory:
    made = Directory(PEPPER, ManualClock())
    made.replace(*people(3))
    return made


def test_a_secret_finds_its_key_and_client(directory: Directory) -> None:
    found = directory.find(b"secret-1")
    assert found is not None
    assert (found[0].id, found[1].id) == ("key-1", "client-1")
    assert directory.client("client-2") is not None
    assert directory.key("key-2") is not None


@pytest.mark.parametrize("secret", [b"", b"secret-9", b"secret-1 ", b"SECRET-1", b"\xff" * 5000, b"secret-1\0"])
def test_what_is_no_secret_finds_nobody(directory: Directory, secret: bytes) -> None:
    assert directory.find(secret) is None


def test_revoked_and_expired_look_like_unknown() -> None:
    clock = ManualClock()
    directory = Directory(PEPPER, clock)
    clients, entries = people(2)
    expires = clock.wall_ns() + 60_000_000_000
    entries[0] = KeyEntry(replace(entries[0].key, expires_wall_ns=expires), entries[0].digest)
    directory.replace(clients, entries)
    assert directory.find(b"secret-0") is not None
    clock.advance(59)
    assert directory.find(b"secret-0") is not None
    clock.advance(1)
    assert directory.find(b"secret-0") is None
    directory.drop_key("key-1")
    assert directory.find(b"secret-1") is None
    directory.drop_key("key-1")


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=200))
def test_the_digest_is_hmac_sha_256(pepper: bytes, secret: bytes) -> None:
    directory = Directory(pepper, ManualClock())
    entry = KeyEntry(Key("k", "c", "client"), hmac.digest(pepper, secret, "sha256"))
    directory.replace([Client("c", "c", Tier("basic"))], [entry])
    assert directory.find(secret) is not None
    assert directory.find(secret + b"x") is None


def test_an_id_in_the_file_and_in_the_database_is_refused_and_the_old_stays(directory: Directory) -> None:
    clients, entries = people(3)
    in_file, _ = people(1, "file")
    with pytest.raises(DirectoryError, match=r"client 'client-0' stands in gateway\.toml and in the database"):
        directory.replace([*in_file, *clients], entries)
    with pytest.raises(DirectoryError, match="client 'client-0' stands twice in the database"):
        directory.replace([*clients, clients[0]], entries)
    with pytest.raises(DirectoryError, match="key 'key-2' stands twice in the database"):
        directory.replace(clients, [*entries, entries[2]])
    with pytest.raises(DirectoryError, match="keys 'other' and 'key-1' have the same secret"):
        directory.replace(clients, [*entries, KeyEntry(Key("other", "client-0", "client"), entries[1].digest)])
    assert len(directory.clients()) == 3
    assert directory.find(b"secret-2") is not None


def test_a_key_of_a_client_that_is_gone_is_refused_in_the_file_and_left_out_from_the_database() -> None:
    directory = Directory(PEPPER, ManualClock())
    clients, entries = people(2)
    directory.replace(clients[:1], entries)
    assert directory.find(b"secret-0") is not None
    assert directory.find(b"secret-1") is None
    _, in_file = people(2, "file")
    with pytest.raises(DirectoryError, match="key 'key-1' belongs to client 'client-1', which does not exist"):
        directory.replace(clients[:1], [in_file[1]])


def test_changes_while_running(directory: Directory) -> None:
    directory.put_client(Client("new", "new", Tier("basic")))
    directory.put_key(KeyEntry(Key("new-key", "new", "client"), digest_of(PEPPER, b"new secret")))
    assert directory.find(b"new secret") is not None
    directory.put_client(Client("new", "new", Tier("premium")))
    found = directory.find(b"new secret")
    assert found is not None
    assert found[1].tier.name == "premium"


def test_finding_costs_the_same_for_ten_and_ten_thousand_clients() -> None:
    """Within the noise of this machine; a search through all of them would be a thousand times slower."""
    times = {}
    for count in (10, 10_000):
        directory = Directory(PEPPER, ManualClock())
        directory.replace(*people(count))
        secrets = [f"secret-{n}".encode() for n in range(10)]
        best = float("inf")
        for _ in range(20):
            began = time.thread_time()
            for _ in range(50):
                for secret in secrets:
                    directory.find(secret)
            best = min(best, (time.thread_time() - began) / 500)
        times[count] = best
    assert times[10_000] < 3 * times[10]
    assert times[10_000] < 20e-6
