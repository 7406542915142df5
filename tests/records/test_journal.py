"""The journal by itself: what is appended is read, in order; what is torn or old is not; full means full."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.records.frames import FRAME_HEAD, MAX_PAYLOAD, PAGE, SEGMENT_HEAD, Geometry
from gateway.records.journal import Journal, LedgerFull, prepare, recover

GEOMETRY = Geometry(3, 64 * 1024)


def fresh(path: Path, geometry: Geometry = GEOMETRY) -> Journal:
    prepare(path, geometry)
    return Journal(path, geometry, 0, 1)


def fill(journal: Journal, reserve: int = 0) -> int:
    """Appends until the journal refuses; how many it took."""
    count = 0
    while count < 10_000:
        try:
            journal.append(1, b"intent" * 150, reserve)
        except LedgerFull:
            return count
        count += 1
    raise AssertionError("it took far more than it holds")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.journal"


def test_once_full_it_stays_shut_until_there_is_room_for_many(path: Path) -> None:
    """Each settlement gives back what it did not need; one more intent for each would never be an end."""
    journal = fresh(path)
    fill(journal, reserve=4000)
    assert journal.shut
    journal.append_reserved(2, b"settled", 4000)
    with pytest.raises(LedgerFull):
        journal.append(1, b"intent")
    while journal.shut:
        journal.append_reserved(2, b"settled", 4000)
    journal.append(1, b"intent")
    journal.close()


def test_records_come_back_in_order_and_once(path: Path) -> None:
    journal = fresh(path)
    for number in range(100):
        journal.append(1 + number % 3, b"record %d" % number)
    read = journal.read(64) + journal.read(64)
    assert [(frame.seq, frame.kind, frame.payload) for frame in read] == [
        (number + 1, 1 + number % 3, b"record %d" % number) for number in range(100)
    ]
    assert journal.read(64) == []
    journal.close()


def test_whoever_opens_the_file_later_finds_the_same(path: Path) -> None:
    journal = fresh(path)
    for number in range(50):
        journal.append(1, b"x" * number)
    # Not closed: the process that wrote is gone at this point.
    frames, ordinal, geometry = recover(path)
    assert [len(frame.payload) for frame in frames] == list(range(50))
    assert (ordinal, geometry) == (0, GEOMETRY)
    journal.close()


def test_the_ring_goes_around_for_ever_while_segments_are_released(path: Path) -> None:
    journal = fresh(path)
    seen = []
    for number in range(3000):  # some twenty laps
        journal.append(1, number.to_bytes(4, "big") * 300)
        if number % 7 == 0:
            seen += [int.from_bytes(frame.payload[:4], "big") for frame in journal.read(1000)]
            journal.release(journal.reading)
    seen += [int.from_bytes(frame.payload[:4], "big") for frame in journal.read(1000)]
    assert seen == list(range(3000))
    recovered = [int.from_bytes(frame.payload[:4], "big") for frame in recover(path)[0]]
    assert recovered == list(range(recovered[0], 3000))
    assert len(recovered) > 50
    journal.close()


def test_nothing_is_overwritten_before_it_is_released(path: Path) -> None:
    journal = fresh(path)
    count = fill(journal)
    assert count > 100
    assert len(recover(path)[0]) == count
    assert len(journal.read(10_000)) == count
    journal.release(journal.reading)
    journal.append(1, b"room again")
    assert journal.read(10)[0].payload == b"room again"
    journal.close()


def test_what_is_reserved_always_fits(path: Path) -> None:
    """Intents fill the journal, then every one of them is settled with all that it reserved."""
    journal = fresh(path)
    intents = fill(journal, reserve=4096)
    assert intents > 20
    assert intents == journal.last_seq
    for _ in range(intents):
        journal.append_reserved(2, b"s" * (4096 - FRAME_HEAD), 4096)
    assert journal.reserved == 0
    frames = recover(path)[0]
    assert [frame.kind for frame in frames] == [1] * intents + [2] * intents
    journal.close()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_room_is_never_promised_twice(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever the order and size of intents, settlements, other records and releases: all that was accepted is there,
    in order, and settlements are always accepted."""
    path = tmp_path_factory.mktemp("journal") / "j"
    journal = fresh(path)
    written: list[bytes] = []
    read: list[bytes] = []
    open_intents = 0
    for step in range(data.draw(st.integers(50, 300))):
        action = data.draw(st.sampled_from(["intend", "intend", "intend", "settle", "settle", "settle", "big", "read"]))
        payload = b"%d " % step + b"z" * data.draw(st.sampled_from([0, 700, 3000, 3900]))
        if action == "intend" or action == "big":
            payload += b"z" * (MAX_PAYLOAD - 4000 if action == "big" else 0)
            try:
                journal.append(1, payload, reserve=4096)
            except LedgerFull:
                continue
            open_intents += 1
        elif action == "settle" and open_intents:
            payload += b"z" * data.draw(st.sampled_from([0, 9000]))
            if not journal.fits(payload, 4096):
                payload = payload[:4000]
            journal.append_reserved(2, payload, 4096)
            open_intents -= 1
        elif action == "read":
            read += [frame.payload for frame in journal.read(50)]
            journal.release(journal.reading)
            continue
        else:
            continue
        written.append(payload)
    for _ in range(open_intents):
        journal.append_reserved(2, b"t" * 4000, 4096)
        written.append(b"t" * 4000)
    read += [frame.payload for frame in journal.read(100_000)]
    assert read == written
    journal.close()


def test_late_records_wait_in_memory_and_enter_in_order(path: Path) -> None:
    journal = fresh(path)
    filled = fill(journal)
    journal.offer(3, b"a" * 2000)
    journal.offer(3, b"b")  # would fit, but not before its elder
    assert journal.late == 2
    journal.catch_up()
    assert journal.late == 2
    assert len(journal.read(10_000)) == filled
    journal.release(journal.reading)
    journal.catch_up()
    assert [frame.payload[:1] for frame in journal.read(10)] == [b"a", b"b"]
    journal.close()


def test_a_record_torn_at_any_byte_ends_the_journal_before_it(path: Path) -> None:
    """kill -9 in the middle of the copy: any prefix of the last record may be there, over whatever stood there."""
    journal = fresh(path)
    journal.append(1, b"whole")
    before = path.read_bytes()
    journal.append(2, b"the torn one" * 3)
    after = path.read_bytes()
    journal.close()
    start = PAGE + SEGMENT_HEAD + FRAME_HEAD + len(b"whole")
    size = FRAME_HEAD + 36
    for cut in range(size):
        path.write_bytes(before[:start] + after[start : start + cut] + before[start + cut :])
        assert [frame.payload for frame in recover(path)[0]] == [b"whole"], cut
    path.write_bytes(after)
    assert len(recover(path)[0]) == 2


def test_a_torn_record_over_an_old_lap_is_not_read(path: Path) -> None:
    journal = fresh(path)
    for _ in range(400):  # several laps of records of one size
        journal.append(1, b"o" * 1000)
        journal.read(10)
        journal.release(journal.reading)
    last = journal.last_seq
    content = bytearray(path.read_bytes())
    journal.close()
    assert recover(path)[0][-1].seq == last
    head = last.to_bytes(8, "little")
    at = content.rindex(head)  # the last record's sequence number in its frame
    content[at + 100] ^= 0xFF
    path.write_bytes(content)
    assert recover(path)[0][-1].seq == last - 1


def test_foreign_and_damaged_files_are_told_apart(path: Path) -> None:
    assert recover(path) == ([], -1, None)
    path.write_bytes(b"")
    assert recover(path) == ([], -1, None)
    path.write_bytes(os.urandom(PAGE * 4))
    assert recover(path) == ([], -1, None)


def test_every_block_is_allocated_before_the_file_is_mapped(path: Path) -> None:
    journal = fresh(path)
    assert path.stat().st_blocks * 512 >= GEOMETRY.file_bytes
    assert path.stat().st_mode & 0o777 == 0o600
    journal.close()


def test_a_disk_without_room_refuses_at_start_and_leaves_nothing(tiny_disk: Any) -> None:
    disk: Path = tiny_disk(1)
    with pytest.raises(OSError, match="space") as refused:
        prepare(disk / "j", Geometry(4, 1024 * 1024))
    assert refused.value.errno == errno.ENOSPC
    assert list(disk.iterdir()) == []


def test_a_journal_too_small_to_hold_its_promises_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="at least two segments"):
        prepare(path, Geometry(1, 1024 * 1024))
    with pytest.raises(ValueError, match="at least two segments"):
        prepare(path, Geometry(4, 8192))
