"""durability = "power": no call is sent before its intent is on the disk, and many calls share one wait."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from gateway.records.journal import LedgerFull
from gateway.records.options import Options


async def test_calls_share_waits_for_the_disk(open_records: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    real = os.fdatasync

    def counted(fd: int) -> None:
        waits.append(records._journal.last_seq)
        real(fd)

    records = await open_records(Options(durability="power"))
    monkeypatch.setattr(os, "fdatasync", counted)

    async def send(number: int) -> None:
        row = rows.attempt()
        records.ledger.intend(row)
        seq = records._journal.last_seq
        await records.ledger.durable()
        assert max(waits) >= seq
        records.ledger.settle(rows.served(row), rows.call(row))

    await asyncio.gather(*(send(number) for number in range(200)))
    assert 1 <= len(waits) <= 20
    await records.ledger.flush()
    assert [row.calls for row in await records.queries.usage(())] == [200]


async def test_a_disk_that_fails_refuses_the_call(
    open_records: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = await open_records(Options(durability="power"))

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    row = rows.attempt()
    records.ledger.intend(row)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", broken)
        with pytest.raises(LedgerFull, match="disk failed"):
            await records.ledger.durable()
    await records.ledger.durable()


async def test_the_database_waits_for_the_disk_too(open_records: Any) -> None:
    records = await open_records(Options(durability="power"))
    level = await records._writer.run(
        lambda connection: connection.exec_driver_sql("PRAGMA synchronous").scalar(), full=False
    )
    assert level == 2


async def test_for_the_process_nothing_waits(open_records: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    records = await open_records()
    monkeypatch.setattr(os, "fdatasync", lambda fd: pytest.fail("waited for the disk"))
    records.ledger.intend(rows.attempt())
    await records.ledger.durable()
