"""The one thread that writes the database: drains the journal in groups, runs jobs, tries again while it can't."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from gateway.records.database import Database, RecordsError, reason_of
from gateway.records.journal import Journal
from gateway.records.posting import ROW_FAULTS, Group, Posting

T = TypeVar("T")
_GROUP = 2048  # records in one transaction, at most
_SLICE = 128  # records decoded before the event loop may have the interpreter again
_BEHIND = 4096  # records not written, from which on the thread gets the interpreter sooner
_HURRY_S = 0.000_5  # how long the event loop keeps it then, when the thread wants it
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_JOB_PATIENCE_S = 10.0
_NEVER = float("inf")


@dataclass(slots=True)
class _Job:
    """Work for a transaction of its own, once all that was journalled before it is written."""

    run: Callable[[Connection], Any]
    future: Future[Any]
    full: bool
    after_seq: int
    expires: float
    given_up: str  # what to say then, before the reason

    def answer(self, result: Any = None, error: BaseException | None = None) -> None:
        try:
            self.future.set_result(result) if error is None else self.future.set_exception(error)
        except InvalidStateError:
            pass  # whoever asked has left

    def give_up(self, reason: str) -> None:
        self.answer(error=RecordsError(f"{self.given_up}: {reason}"))


class _GaveUpError(Exception):
    """Closing, and the database takes no writes."""


class Writer:
    """Started once, never cancelled: what it has not written when the process ends is in the journal."""

    def __init__(self, database: Database, journal: Journal, posting: Posting, group_s: float) -> None:
        self._idle = False  # it waits for `wake`
        self._database = database
        self._journal = journal
        self._posting = posting
        self._group_s = group_s
        self._rejects = database.path.with_name("ledger.rejected")
        self._woken = threading.Event()
        self._jobs: deque[_Job] = deque()
        self._applied_seq = journal.last_seq
        self._stop_by = _NEVER
        self.on_trouble: Callable[[str], None] = _unheard  # called in the thread: a reason, or "" when it is over
        self._usual_s = 0.0  # how long a thread keeps the interpreter, while that is shortened; else 0
        self._trouble = ""
        self._trouble_since = 0.0
        self._rejected = 0
        self._thread = threading.Thread(target=self._work, name="tidegate-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Tells the thread that there is something to do."""
        self._idle = False
        self._woken.set()

    def appended(self) -> None:
        """What the event loop says after each append. A loop that is never idle would starve the thread: between two
        looks at its sockets, each under the usual 5 ms, it gives the interpreter back only for microseconds, too short
        for a waiting thread to take it, and every time that thread's patience starts anew. So while the thread is
        behind, its patience is shorter than what the loop has to do. The loop never waits."""
        if self._idle:
            self.wake()
        elif not self._usual_s and self._journal.last_seq - self._applied_seq > _BEHIND and not self._trouble:
            self._usual_s = sys.getswitchinterval()
            sys.setswitchinterval(_HURRY_S)

    def _caught_up(self) -> None:
        usual_s, self._usual_s = self._usual_s, 0.0
        if usual_s:
            sys.setswitchinterval(usual_s)

    async def run(
        self,
        job: Callable[[Connection], T],
        *,
        full: bool = True,
        patience_s: float = _JOB_PATIENCE_S,
        given_up: str = "nothing was changed",
    ) -> T:
        """Runs a job in a transaction of its own, after all that was journalled before. `full` waits for the disk.
        Raises what the job raises, and RecordsError when the database takes no writes for `patience_s` seconds: then
        it is never run."""
        future: Future[T] = Future()
        self._jobs.append(_Job(job, future, full, self._journal.last_seq, time.monotonic() + patience_s, given_up))
        self.wake()
        return await asyncio.wrap_future(future)

    async def flush(self, patience_s: float = _NEVER) -> None:
        """Returns when all that was journalled before is in the database. Raises RecordsError as `run` does."""
        given_up = "the newest calls are not in the database"
        await self.run(_nothing, full=False, patience_s=patience_s, given_up=given_up)

    async def aclose(self, patience_s: float) -> None:
        """Writes what is left and ends; gives up on a stuck database after `patience_s`, the journal keeps the rest."""
        self._stop_by = time.monotonic() + patience_s
        self.wake()
        await asyncio.to_thread(self._thread.join)

    def health(self) -> list[str]:
        """Reasons why writing is not well."""
        reasons = []
        if self._trouble:
            reasons.append(f"{self._trouble}, for {time.monotonic() - self._trouble_since:.0f} s")
        if self._rejected:
            reasons.append(f"{self._rejected} rows could not be stored and stand in {self._rejects}")
        return reasons

    # -- the thread

    def _work(self) -> None:
        try:
            while self._stop_by == _NEVER or self._jobs or self._journal.unread:
                self._wait()
                self._drain()
                while self._jobs and self._jobs[0].after_seq <= self._applied_seq:
                    self._do(self._jobs[0])
                    self._jobs.popleft()
        except _GaveUpError:
            structlog.get_logger().warning("records stay in the journal until the next start", reason=self._trouble)
        except BaseException as error:
            self._trouble, self._trouble_since = f"the writer ended by a defect: {error!r}", time.monotonic()
            structlog.get_logger().exception("the records' writer ended")
        finally:
            self._caught_up()
            for job in self._jobs:
                job.give_up(self._trouble)

    def _wait(self) -> None:
        self._woken.clear()
        self._idle = True
        if not self._journal.unread and not self._jobs and self._stop_by == _NEVER:
            self._woken.wait()
        self._idle = False
        if not self._jobs and self._stop_by == _NEVER:
            time.sleep(self._group_s)  # gathers a group

    def _drain(self) -> None:
        while self._journal.unread:
            group = Group()
            for _ in range(_GROUP // _SLICE):
                frames = self._journal.read(_SLICE)
                if not frames:
                    break
                self._posting.take(group, frames)
                time.sleep(0)
            reading = self._journal.reading
            self._posting.close(group, reading)
            self._persist(group)
            self._applied_seq = group.applied_seq
            self._journal.release(reading)
        self._caught_up()

    def _persist(self, group: Group) -> None:
        """Until it is committed."""
        pause_s = _FIRST_PAUSE_S
        write = self._posting.write
        while True:
            try:
                with self._database.transaction() as connection:
                    rejected = write(connection, group)
                break
            except ROW_FAULTS as error:
                self._fail("a row can't be stored", error, pause_s)
                write = self._posting.write_slowly
            except DatabaseError as error:
                self._fail(reason_of(error), error, pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        self._well()
        self._reject([*rejected, *group.unreadable])

    def _do(self, job: _Job) -> None:
        pause_s = _FIRST_PAUSE_S
        while not job.future.done():  # whoever was told that nothing was changed must find it so
            try:
                with self._database.transaction(full=job.full) as connection:
                    result = job.run(connection)
            except DatabaseError as error:
                if isinstance(error, ROW_FAULTS):
                    job.answer(error=error)
                    return
                self._fail(reason_of(error), error, pause_s)
            except Exception as error:
                job.answer(error=error)
                return
            else:
                self._well()
                job.answer(result)
                return
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _fail(self, reason: str, error: BaseException, pause_s: float) -> None:
        """Notes the trouble and waits; jobs that waited too long are told."""
        self._posting.rolled_back()
        now = time.monotonic()
        if not self._trouble:
            self._trouble_since = now
            structlog.get_logger().error("the records can't be written now", reason=reason, error=str(error))
        if reason != self._trouble:
            self._trouble = reason
            self.on_trouble(reason)
        for job in list(self._jobs):
            if job.expires < now:
                job.give_up(reason)
        if now > self._stop_by:
            raise _GaveUpError
        time.sleep(pause_s)

    def _well(self) -> None:
        if self._trouble:
            structlog.get_logger().info("the records are written again", reason=self._trouble)
            self._trouble = ""
            self.on_trouble("")

    def _reject(self, rows: list[Any]) -> None:
        """Keeps what no table takes in a file, for people."""
        if not rows:
            return
        self._rejected += len(rows)
        structlog.get_logger().error("rows can't be stored", count=len(rows), file=str(self._rejects))
        try:
            with self._rejects.open("ab") as file:
                for row in rows:
                    file.write(msgspec.json.encode(row) + b"\n")
        except OSError as error:
            structlog.get_logger().error("nor in a file", rows=[repr(row) for row in rows], error=str(error))


def _unheard(_reason: str) -> None:
    return


def _nothing(_connection: Connection) -> None:
    return
