"""Events are found at any split, and no line ends where the standard says it does not."""

from __future__ import annotations

import itertools
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.sse import Splitter, data_of, end_of_events, events_of, last_events

#: A busy machine is no failure.
CALM = settings(deadline=None, max_examples=200)

PIECES = st.sampled_from(
    ["\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "data:", "data: ", "x", ":", "\u2028", "\x0b", "\x85", "event: e"]
)
STREAMS = st.lists(PIECES, max_size=20).map(lambda pieces: "".join(pieces).encode())


def slow_events(stream: bytes) -> list[bytes]:
    """The payloads of the complete events, read line by line as the standard tells it."""
    found: list[bytes] = []
    data: list[bytes] = []
    for line in re.split(rb"\r\n|\n|\r", stream)[:-1]:
        if not line:
            if data:
                found.append(b"\n".join(data))
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    return found


def payloads(data: bytes) -> list[bytes]:
    """Of every event with data lines; an empty payload is one too."""
    return [data_of(event) for event in events_of(data) if re.search(rb"(?:^|[\r\n])data:", event)]


@CALM
@given(STREAMS, st.lists(st.integers(0, 60), max_size=6))
@example(b"data: a\r\r\ndata: b\r\n\r\n", [9])
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10, 11])
@example(b"data: a\n\r\ndata: b\n\n", [8, 9])
@example(b"data:\r\n\r", [])
def test_every_split_gives_the_same_bytes_and_events(stream: bytes, cuts: list[int]) -> None:
    splitter = Splitter()
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    came = [splitter.feed(stream[begin:end]) for begin, end in itertools.pairwise(places)]
    assert b"".join(came) + splitter.rest() == stream
    assert [payload for out in came for payload in payloads(out)] == slow_events(b"".join(came))
    # Whether a CR at the very end is a whole line is known only by what follows it.
    ends = (stream, stream[:-1]) if stream.endswith(b"\r") else (stream,)
    assert slow_events(b"".join(came)) in [slow_events(end) for end in ends]


@CALM
@given(STREAMS)
def test_one_byte_at_a_time_gives_whole_events_only(stream: bytes) -> None:
    splitter = Splitter()
    for index in range(len(stream)):
        out = splitter.feed(stream[index : index + 1])
        assert out == b"" or end_of_events(out) == len(out)
    assert not splitter.is_inside


def test_a_chunk_that_is_whole_comes_back_as_it_is() -> None:
    splitter = Splitter()
    chunk = b"data: a\n\ndata: b\n\n"
    assert splitter.feed(chunk) is chunk


def test_an_event_over_the_limit_is_passed_on_in_pieces() -> None:
    splitter = Splitter(limit=100)
    assert splitter.feed(b"data: a\n\ndata: ") == b"data: a\n\n"
    assert splitter.feed(b"x" * 90) == b""
    assert splitter.feed(b"y" * 30) == b"data: " + b"x" * 90 + b"y" * 30
    assert splitter.is_inside
    assert splitter.feed(b"zz") == b"zz"
    assert splitter.feed(b"z\n") == b"z\n"
    assert splitter.is_inside
    assert splitter.feed(b"\ndata: b\n\ndata: ") == b"\ndata: b\n\n"
    assert not splitter.is_inside
    assert splitter.rest() == b"data: "


def test_data_lines_are_joined_and_other_fields_left_out() -> None:
    assert data_of(b"event: x\r\nid: 1\r\ndata: a\r\ndata:b\r\ndata:  c\r\n: data: no\r\n\r\n") == b"a\nb\n c"
    assert data_of("data: a\u2028b\n\n".encode()) == "a\u2028b".encode()
    assert data_of(b"event: x\n\n") == b""


@CALM
@given(STREAMS, st.integers(1, 4))
@example(b"data:\n\ndata:\n\n\n\ndata:\n\n", 3)
def test_the_last_events_are_the_last_ones(stream: bytes, count: int) -> None:
    stream = stream[: end_of_events(stream)]
    want = [data_of(event) for event in events_of(stream) if event.strip()]
    got = [data_of(event) for event in last_events(stream, count)]
    assert got == want[-count:]
