"""SIGTERM with real processes: not ready at once, what runs may end, all is settled, and it ends in time."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from typing import Any

import pytest

from gateway.control.socket import ask

SHORT = "[server]\ndrain_s = 2\n"
LONG = "[server]\ndrain_s = 20\n"


def terminate(server: Any) -> float:
    server.process.send_signal(signal.SIGTERM)
    return time.monotonic()


def rows(server: Any) -> list[dict[str, Any]]:
    """The ledger's calls, after the gateway has ended."""
    found: list[dict[str, Any]] = server.calls()
    return found


def test_idle_it_ends_at_once(begin: Any, line: Any) -> None:
    server = begin(LONG)
    idle = line(server)
    idle.get()
    idle.until(b"}")
    since = terminate(server)
    idle.rest()
    assert server.process.wait(15) == 0
    assert time.monotonic() - since < 15  # of the 20 s that calls would have


def test_a_connection_that_is_new_is_answered(begin: Any, line: Any, wait: Any) -> None:
    """It was made a moment before the signal, with its request on the way: a reset would be no answer."""
    server = begin(LONG)
    busy, new = line(server), line(server)
    busy.post("latency-ms=600")
    wait(lambda: calls(server) == 1)
    terminate(server)
    busy.rest()  # a while later
    new.post()
    answer = new.rest().lower()
    assert answer.startswith(b"http/1.1 503")
    assert b'"code":"draining"' in answer
    assert b"connection: close" in answer
    assert server.process.wait(15) == 0


@pytest.mark.parametrize("protocol", ["native", "httptools"])
def test_streams_end_and_nobody_new_comes_in(begin: Any, line: Any, wait: Any, protocol: str) -> None:
    """While they end: not ready, alive, new calls refused with a retry-after, every answer closes its connection."""
    server = begin(LONG + f'protocol = "{protocol}"\n')
    stream, idle = line(server), line(server)
    idle.get()
    idle.until(b"}")
    stream.post("chunks=40; chunk-ms=75", stream=True)
    stream.until(b"data: ")
    since = terminate(server)
    assert idle.rest().count(b"HTTP/1.1") == 1  # closed without another answer
    wait(lambda: server.request("GET", "/readyz", key=None)[0] == 503)
    assert server.request("GET", "/livez", key=None)[0] == 200
    wait(lambda: server.request("POST", "/v1/chat/completions", {})[0] == 503)
    late = line(server)
    late.post()
    answer = late.rest().lower()
    assert answer.startswith(b"http/1.1 503")
    assert b'"code":"draining"' in answer
    assert b"retry-after: " in answer
    assert b"connection: close" in answer
    assert stream.rest().endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert server.process.wait(15) == 0
    assert time.monotonic() - since < 18
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    assert [row["outcome"] for row in rows(server) if row["attempts"]] == ["served"]


def test_answers_of_what_runs_close_their_connection(begin: Any, line: Any, wait: Any) -> None:
    server = begin(LONG)
    plain = line(server)
    plain.post("latency-ms=1500")
    wait(lambda: calls(server) == 1)
    terminate(server)
    answer = plain.rest()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()
    assert server.process.wait(15) == 0


def test_stuck_streams_are_cut_told_and_settled_in_time(begin: Any, line: Any, wait: Any) -> None:
    for _ in range(3):  # again where the machine was too busy to tell
        took = seconds_to_end(begin, line, wait)
        if took < 2 + 2:
            break
    assert 2 <= took < 2 + 2


def seconds_to_end(begin: Any, line: Any, wait: Any) -> float:
    """How long a gateway with three stuck answers takes from the signal to its end."""
    server = begin(SHORT)
    stream, waiting, unread = line(server), line(server), line(server)
    stream.post("stall=after:3", stream=True)
    waiting.post("halfopen")
    unread.post("chunks=20000; huge-event=3000000", stream=True)  # and reads nothing
    stream.until(b"data: ")
    wait(lambda: calls(server) == 3)
    since = terminate(server)
    assert b"draining" in stream.rest()  # an error event, and the end
    assert b"draining" in waiting.rest()
    assert waiting.got.startswith(b"HTTP/1.1 503")
    code = server.process.wait(15)
    took = time.monotonic() - since
    assert code == 0
    assert [(row["outcome"], row["error"]) for row in rows(server)] == [("failed", "draining")] * 3
    attempts = server.tidegate("usage", "--by", "client", "--json", "--config", str(server.config))
    assert attempts[0]["attempts"] == 3
    return took


def test_a_call_cut_in_the_pause_before_a_retry_did_not_leave(begin: Any, line: Any, wait: Any) -> None:
    server = begin("[server]\ndrain_s = 1\n[retry]\nlongest_retry_after_s = 60\n")
    pausing = line(server)
    pausing.post("status=429; retry-after=50")
    wait(lambda: calls(server) == 1)
    terminate(server)
    assert b"draining" in pausing.rest()
    assert server.process.wait(15) == 0
    assert [(row["outcome"], row["status"], row["error"]) for row in rows(server)] == [("failed", 503, "draining")]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once_without_losing_rows(begin: Any, line: Any, wait: Any, second: int) -> None:
    server = begin(LONG)
    lines = [line(server) for _ in range(20)]
    for one in lines:
        one.post("stall=after:3", stream=True)
    for one in lines:
        one.until(b"data: ")
    terminate(server)
    wait(lambda: server.request("GET", "/readyz", key=None)[0] == 503)
    server.process.send_signal(second)
    assert server.process.wait(12) == 0  # of the 20 s that it would have
    found = rows(server)
    assert len(found) == 20
    assert all(row["attempts"] == 1 for row in found)


def test_for_a_while_calls_are_still_served(begin: Any, line: Any, wait: Any) -> None:
    """drain_accept_s: a load balancer needs time to see that we are not ready."""
    server = begin(LONG + "drain_accept_s = 2\n")
    since = terminate(server)
    wait(lambda: server.request("GET", "/readyz", key=None)[0] == 503)
    one = line(server)
    one.post()
    answer = one.rest()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()
    assert server.process.wait(15) == 0
    assert time.monotonic() - since >= 2


def test_calls_that_queue_are_answered(begin: Any, line: Any, wait: Any) -> None:
    server = begin(LONG + "[policy.queue]\nmax_concurrent = 1\n")
    first, second = line(server), line(server)
    first.post("latency-ms=1000")
    wait(lambda: calls(server) == 1)
    second.post("latency-ms=100")
    wait(lambda: calls(server) == 2)
    terminate(server)
    assert first.rest().startswith(b"HTTP/1.1 200")
    assert second.rest().startswith(b"HTTP/1.1 200")
    assert server.process.wait(15) == 0


def calls(server: Any) -> int:
    """How many calls are under way, by the admin socket."""
    found: int = asyncio.run(ask(server.folder / "data", "status"))["calls"]
    return found
