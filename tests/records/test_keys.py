"""Clients and keys: made once, shown once, kept as a keyed hash; rotated with an overlap, revoked at once."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.clients import BudgetRules, Client, Key, QuotaRules, Scope, Tier
from gateway.clock import ManualClock
from gateway.directory import Directory, KeyEntry, digest_of
from gateway.records.database import RecordsError
from gateway.records.store import Records

TIERS = {"basic": Tier("basic"), "premium": Tier("premium", priority=30)}


@pytest.fixture(autouse=True)
def no_given_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TIDEGATE_ADMIN_KEY", "TIDEGATE_CLIENT_KEY", "TIDEGATE_PEPPER"):
        monkeypatch.delenv(name, raising=False)


async def filled(records: Records, clock: Any = None) -> Directory:
    directory = Directory(records.pepper, clock or ManualClock(wall_ns=time.time_ns()))
    directory.replace(*await records.keys.load(TIERS))
    records.attach(directory)
    return directory


async def test_a_new_key_opens_the_gate_at_once_and_after_a_restart(open_records: Any) -> None:
    records = await open_records()
    directory = await filled(records)
    scope = Scope(models=("gpt-*",), routes=None, workers=())
    quota = QuotaRules(requests=("10/minute",), tokens=(), concurrent=3)
    budget = BudgetRules(day_pusd=5 * 10**12, hard=False)
    await records.keys.create_client("acme", org="big", tier="premium", scope=scope, quota=quota, budget=budget)
    made = await records.keys.create_key("acme", role="service", scope=scope, quota=quota, budget=budget)
    assert re.fullmatch(r"tg-[A-Za-z0-9_-]{43}", made.secret)
    found = directory.find(made.secret.encode())
    assert found is not None
    key, client = found
    assert (key.id, key.role, key.hint) == (made.key.id, "service", made.secret[-4:])
    assert (client.id, client.org, client.tier.priority) == ("acme", "big", 30)
    await records.aclose()
    records = await open_records()
    again = (await filled(records)).find(made.secret.encode())
    assert again == found
    assert again is not None
    assert (again[1].scope, again[1].quota, again[1].budget) == (scope, quota, budget)
    assert (again[0].scope, again[0].quota, again[0].budget) == (scope, quota, budget)


async def test_no_secret_is_ever_on_the_disk(open_records: Any, tmp_path: Path) -> None:
    records = await open_records()
    await records.keys.create_client("acme")
    secrets = [(await records.keys.create_key("acme")).secret for _ in range(3)]
    secrets.append((await records.keys.rotate((await records.keys.list_keys())[0].key.id)).secret)
    await records.aclose()
    for file in (tmp_path / "data").iterdir():
        content = file.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, file


async def test_the_hash_is_worth_nothing_without_the_pepper(open_records: Any, look: Any) -> None:
    records = await open_records()
    await records.keys.create_client("acme")
    made = await records.keys.create_key("acme")
    assert look.one("SELECT digest FROM keys") == digest_of(records.pepper, made.secret.encode()).hex()
    other = Directory(b"another pepper, of another host", ManualClock())
    other.replace(*await records.keys.load(TIERS))
    assert other.find(made.secret.encode()) is None


async def test_a_rotated_key_is_valid_for_its_overlap(open_records: Any) -> None:
    clock = ManualClock(wall_ns=time.time_ns())
    records = await open_records(clock=clock)
    directory = await filled(records, clock)
    await records.keys.create_client("acme")
    scope = Scope(models=("m",))
    old = await records.keys.create_key("acme", role="viewer", scope=scope)
    new = await records.keys.rotate(old.key.id, overlap_s=60)
    assert (new.key.role, new.key.scope, new.key.client_id) == ("viewer", scope, "acme")
    assert directory.find(old.secret.encode()) is not None
    assert directory.find(new.secret.encode()) is not None
    clock.advance(60)
    assert directory.find(old.secret.encode()) is None
    assert directory.find(new.secret.encode()) is not None
    newest = await records.keys.rotate(new.key.id)
    assert directory.find(new.secret.encode()) is None
    assert directory.find(newest.secret.encode()) is not None
    with pytest.raises(RecordsError, match="is revoked already"):
        await records.keys.rotate(new.key.id)


async def test_a_rotation_never_lengthens_a_life(open_records: Any) -> None:
    clock = ManualClock(wall_ns=time.time_ns())
    records = await open_records(clock=clock)
    directory = await filled(records, clock)
    await records.keys.create_client("acme")
    old = await records.keys.create_key("acme", expires_wall_ns=clock.wall_ns() + 10_000_000_000)
    new = await records.keys.rotate(old.key.id, overlap_s=3600)
    clock.advance(10)
    assert directory.find(old.secret.encode()) is None
    assert directory.find(new.secret.encode()) is None


async def test_a_revoked_key_is_closed_at_once_and_for_ever(open_records: Any) -> None:
    records = await open_records()
    directory = await filled(records)
    await records.keys.create_client("acme")
    made = await records.keys.create_key("acme")
    await records.keys.revoke(made.key.id)
    assert directory.find(made.secret.encode()) is None
    (info,) = await records.keys.list_keys("acme")
    assert info.revoked_wall_ns is not None
    await records.aclose()
    records = await open_records()
    assert (await filled(records)).find(made.secret.encode()) is None
    with pytest.raises(RecordsError, match="is revoked already"):
        await records.keys.revoke(made.key.id)


async def test_what_can_not_be_made_is_refused_with_the_reason(open_records: Any) -> None:
    records = await open_records()
    directory = await filled(records)
    directory.put_client(Client("filed", "filed", TIERS["basic"], source="file"))
    directory.put_key(KeyEntry(Key("filed-key", "filed", "client", source="file"), b"d" * 32))
    keys = records.keys
    await keys.create_client("acme")
    with pytest.raises(RecordsError, match="client 'acme' exists already"):
        await keys.create_client("acme")
    with pytest.raises(RecordsError, match="client 'filed' exists already"):
        await keys.create_client("filed")
    with pytest.raises(RecordsError, match=r"no tier 'gold'; gateway\.toml has basic, premium"):
        await keys.create_client("other", tier="gold")
    for bad in ("", "a b", "-a", "a" * 65, "ä", "a/b", "a\n"):
        with pytest.raises(RecordsError, match="client id"):
            await keys.create_client(bad)
    with pytest.raises(RecordsError, match="there is no client 'nobody'"):
        await keys.create_key("nobody")
    with pytest.raises(RecordsError, match="there is no role 'root'"):
        await keys.create_key("acme", role="root")
    with pytest.raises(RecordsError, match="at least 16 visible ASCII"):
        await keys.create_key("acme", secret="short")
    await keys.create_key("acme", secret="a-secret-of-mine")
    with pytest.raises(RecordsError, match="secret is in use already"):
        await keys.create_key("acme", secret="a-secret-of-mine")
    for change in (keys.revoke, keys.rotate):
        with pytest.raises(RecordsError, match=r"key 'filed-key' stands in gateway\.toml"):
            await change("filed-key")
    made = await keys.create_key("filed")  # a client of the file may have keys in the database
    assert directory.find(made.secret.encode()) is not None
    assert {info.id: info.source for info in await keys.list_clients()} == {"acme": "database", "filed": "file"}


async def test_a_tier_that_the_file_lost_stops_the_start(open_records: Any) -> None:
    records = await open_records()
    await records.keys.load(TIERS)
    await records.keys.create_client("acme", tier="premium")
    with pytest.raises(RecordsError, match=r"client 'acme' in the database has tier 'premium'.*\[tiers.premium\]"):
        await records.keys.load({"basic": Tier("basic")})


async def test_first_keys_are_written_to_a_file_of_the_owners(open_records: Any, tmp_path: Path) -> None:
    records = await open_records()
    first = await records.keys.first_keys(terminal=False)
    path = tmp_path / "data" / "first-keys.txt"
    assert first.path == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == f"admin key: {first.admin}\nclient key: {first.client}\n"
    directory = await filled(records)
    admin, client = directory.find(first.admin.encode()), directory.find(first.client.encode())
    assert admin is not None
    assert client is not None
    assert (admin[0].role, admin[1].id, client[0].role, client[1].id) == ("admin", "admin", "client", "default")
    assert await records.keys.first_keys(terminal=False) is None


async def test_first_keys_on_a_terminal_are_only_shown(open_records: Any, tmp_path: Path) -> None:
    records = await open_records()
    first = await records.keys.first_keys(terminal=True)
    assert first.path == ""
    assert first.admin.startswith("tg-")
    assert not (tmp_path / "data" / "first-keys.txt").exists()


async def test_given_first_keys_are_taken_and_not_shown(
    open_records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_ADMIN_KEY", "my-own-admin-key")
    monkeypatch.setenv("TIDEGATE_CLIENT_KEY", "my-own-client-key")
    records = await open_records()
    assert await records.keys.first_keys(terminal=False) is None
    assert not (tmp_path / "data" / "first-keys.txt").exists()
    directory = await filled(records)
    assert directory.find(b"my-own-admin-key") is not None
    assert directory.find(b"my-own-client-key") is not None
    monkeypatch.setenv("TIDEGATE_ADMIN_KEY", "another-one-later")
    assert await records.keys.first_keys(terminal=False) is None
    assert (await filled(records)).find(b"another-one-later") is None


async def test_a_client_of_the_file_is_not_made_again(open_records: Any) -> None:
    records = await open_records()
    first = await records.keys.first_keys(terminal=True, taken=["default"])
    assert first.client == ""
    assert [info.id for info in await records.keys.list_clients()] == ["admin"]


async def test_the_pepper(open_records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = await open_records()
    pepper = records.pepper
    assert len(pepper) == 64
    assert (tmp_path / "data" / "pepper").stat().st_mode & 0o777 == 0o600
    await records.aclose()
    records = await open_records()
    assert records.pepper == pepper
    await records.aclose()
    monkeypatch.setenv("TIDEGATE_PEPPER", "shared by all our hosts")
    records = await open_records()
    assert records.pepper == b"shared by all our hosts"
    await records.aclose()
    monkeypatch.setenv("TIDEGATE_PEPPER", "short")
    with pytest.raises(RecordsError, match="TIDEGATE_PEPPER is shorter than 16"):
        await open_records()
    assert os.environ["TIDEGATE_PEPPER"] == "short"
