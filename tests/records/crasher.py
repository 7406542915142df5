"""A ledger under full speed, to be killed: for each line on standard input, forks a process that opens the records and
writes until it is killed. What it does it tells a log of its own first, as a provider would before it replies."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from gateway.ids import Ids
from gateway.records.journal import LedgerFull
from gateway.records.options import Options
from gateway.records.rows import AttemptRow, CallRow
from gateway.records.store import Records

OPTIONS = Options(segments=3, segment_bytes=128 * 1024, group_ms=2)


def attempt(ids: Ids) -> AttemptRow:
    wall_ns = time.time_ns()
    call_id = ids.new(wall_ns)
    client = random.choice(["acme", "other"])
    return AttemptRow(
        id=f"{call_id}.1", call_id=call_id, n=1, org=client, client=client, key="k", route="chat", provider="openai",
        model="gpt-4o", upstream_model="gpt-4o", started_wall_ns=wall_ns, worst_pusd=10**9, worst_tokens=999,
    )  # fmt: skip


def call_of(row: AttemptRow) -> CallRow:
    return CallRow(
        id=row.call_id, org=row.org, client=row.client, key="k", route="chat", method="POST", path="/v1/x",
        dialect="openai", model="gpt-4o", served_model="gpt-4o", provider="openai",
        started_wall_ns=row.started_wall_ns, outcome="served", status=200, cost_pusd=row.cost_pusd,
        charge_pusd=row.cost_pusd,
    )  # fmt: skip


async def work(folder: Path, log: int, said: int) -> None:
    records = await Records.open(folder, OPTIONS)
    os.write(said, b"open\n")
    ids = Ids()
    waiting: list[AttemptRow] = []
    count = 0
    while True:
        count += 1
        row = attempt(ids)
        try:
            records.ledger.intend(row)
        except LedgerFull:
            row = None  # type: ignore[assignment]  # nothing is sent
        if row is not None:
            os.write(log, f"sent {row.id}\n".encode())
            waiting.append(row)
        # Some thirty stay open, the eldest for long: kills find intents of every age.
        if waiting and (row is None or len(waiting) > 30 or random.random() < 0.5):
            done = waiting.pop(random.randrange(len(waiting)))
            done.outcome, done.cost_pusd = "served", random.randrange(1, 10**6)
            records.ledger.settle(done, call_of(done))
            os.write(log, f"done {done.id} {done.cost_pusd}\n".encode())
        if count % 10 == 0:
            made = ids.new(time.time_ns())
            records.objects.add(made, "acme", "acme", "openai", "file")
            if not records._journal.late:
                os.write(log, f"made {made}\n".encode())
            await asyncio.sleep(0.000_5)  # else the writer's thread would never be in the middle of something


def main() -> None:
    folder, log_path = Path(sys.argv[1]), sys.argv[2]
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            said = os.dup(1)
            os.dup2(2, 1)  # what is logged must not come between the answers
            random.seed()
            log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            asyncio.run(work(folder, log, said))
            os._exit(1)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main()
