"""Provider objects belong to the org that made them, also after a crash."""

from __future__ import annotations

from typing import Any


async def own_of(records: Any, ids: list[str]) -> set[str]:
    """Those of the ids that belong to "acme"."""
    owners = await records.objects.owners(ids)
    return {id for id, row in owners.items() if row is not None and row.org == "acme"}


async def test_an_object_is_known_at_once_and_after_a_restart(open_records: Any) -> None:
    records = await open_records()
    records.objects.add("file-1", "acme", "acme-app", "openai", "file")
    found = await records.objects.owner("file-1")
    assert (found.org, found.client, found.provider, found.kind) == ("acme", "acme-app", "openai", "file")
    await records.aclose()
    records = await open_records()
    assert await records.objects.owner("file-1") == found
    assert await records.objects.owner("file-2") is None


async def test_lists_keep_only_the_orgs_own(open_records: Any) -> None:
    records = await open_records()
    for number in range(1200):
        records.objects.add(f"file-{number}", "acme" if number % 2 else "other", "c", "openai", "file")
        if number % 200 == 0:
            await records.ledger.flush()
    await records.aclose()
    records = await open_records()
    records.objects.add("file-new", "acme", "c", "openai", "file")
    ids = [f"file-{number}" for number in range(1300)] + ["file-new"]
    own = await own_of(records, ids)
    assert own == {f"file-{number}" for number in range(1, 1200, 2)} | {"file-new"}
    assert await own_of(records, []) == set()


async def test_a_deleted_object_is_nobodys(open_records: Any) -> None:
    records = await open_records()
    records.objects.add("file-1", "acme", "c", "openai", "file")
    records.objects.add("file-2", "acme", "c", "openai", "file")
    await records.ledger.flush()
    records.objects.discard("file-1")
    assert await records.objects.owner("file-1") is None
    assert await own_of(records, ["file-1", "file-2"]) == {"file-2"}
    await records.aclose()
    records = await open_records()
    assert await records.objects.owner("file-1") is None
    assert (await records.objects.owner("file-2")).org == "acme"


async def test_memory_is_bounded_and_the_database_answers_for_the_rest(open_records: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("gateway.records.objects._REMEMBERED", 10)
    records = await open_records()
    for number in range(100):
        records.objects.add(f"file-{number}", "acme", "c", "openai", "file")
    await records.ledger.flush()
    assert len(records.objects._latest) == 10
    assert (await records.objects.owner("file-0")).org == "acme"


async def test_an_id_longer_than_any_provider_makes_is_nobodys(open_records: Any) -> None:
    records = await open_records()
    records.objects.add("f" * 20_000, "acme", "c", "openai", "file")
    records.objects.discard("f" * 20_000)
    await records.ledger.flush()
    assert await records.objects.owner("f" * 20_000) is None


async def test_who_made_an_object_first_keeps_it(open_records: Any) -> None:
    """A reply that names another org's object does not move it over the wall, now or after a restart."""
    records = await open_records()
    records.objects.add("file-1", "acme", "c", "openai", "file")
    records.objects.add("file-1", "other", "d", "openai", "file")
    assert (await records.objects.owner("file-1")).org == "acme"
    await records.aclose()
    records = await open_records()
    assert (await records.objects.owner("file-1")).org == "acme"
