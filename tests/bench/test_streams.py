"""The stream generator takes nothing for a whole stream that is not one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from loadtests.bench.responder import Responder

Streams = Callable[..., dict[str, Any]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = [b'data: {"content":"00000000 0 a"}\n\n', b'data: {"content":"00000001 0 b"}\n\n', b"data: [DONE]\n\n"]


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return HEAD + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


@contextmanager
def server(answer: bytes) -> Iterator[int]:
    """Gives every request that answer and closes; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("model", ["bench-burst-100", "bench-paced-10"])
def test_whole_streams_are_complete(responder: Responder, streams: Streams, model: str) -> None:
    seen = streams(responder.port, model)
    assert seen["incomplete"] == 0
    assert seen["reasons"] == {}
    assert seen["complete"] == responder.counts().streams_finished > 4
    assert seen["chunks"] == responder.counts().chunks == seen["complete"] * int(model.rsplit("-", 1)[1])
    assert 0 < seen["first_byte_us"]["p50"] <= seen["first_byte_us"]["p99"]


def test_a_cut_stream_is_incomplete(responder: Responder, streams: Streams) -> None:
    seen = streams(responder.port, "bench-cut-10")
    assert seen["complete"] == 0
    assert seen["reasons"] == {"cut": seen["incomplete"]}
    assert seen["incomplete"] > 0


def test_a_missing_chunk_is_noticed(responder: Responder, streams: Streams) -> None:
    seen = streams(responder.port, "bench-skip-10")
    assert seen["complete"] == 0
    assert seen["reasons"] == {"out_of_order": seen["incomplete"]}


def test_too_few_chunks_are_noticed(responder: Responder, streams: Streams) -> None:
    seen = streams(responder.port, "bench-burst-10", chunks=11)
    assert seen["complete"] == 0
    assert seen["incomplete"] > 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (chunked(*WHOLE), None),
        (chunked(*WHOLE[:2]), "no_end_marker"),
        (chunked(*WHOLE, end=b""), "cut"),
        (chunked(WHOLE[0], WHOLE[0], *WHOLE[1:]), "out_of_order"),
        (chunked(WHOLE[1], WHOLE[0], WHOLE[2]), "out_of_order"),
        (chunked(*WHOLE, WHOLE[0]), "out_of_order"),
        (chunked(*WHOLE, end=b"0\r\n\r\nmore"), "misframed"),
        (HEAD + b"5\r\ndata: more than five\r\n0\r\n\r\n", "misframed"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "refused"),
        (b"", "cut"),
    ],
)
def test_reasons(streams: Streams, answer: bytes, reason: str | None) -> None:
    with server(answer) as port:
        seen = streams(port, "bench-burst-2", width=1, seconds=0.1)
    assert set(seen["reasons"]) == ({reason} if reason else set())
    assert (seen["complete"] > 0) is (reason is None)


def test_nobody_listening_is_a_failure(streams: Streams) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    seen = streams(port, "bench-burst-2", width=1, seconds=0.05)
    assert set(seen["reasons"]) == {"unreachable"}


def test_usage_events_are_counted(responder: Responder, streams: Streams) -> None:
    assert streams(responder.port, "bench-burst-10")["usage_events"] == 0
