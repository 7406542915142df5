"""Clients that are slow, in either direction, are let go on time; the others are not."""

import time
from typing import Any

import pytest

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


class Stopwatch:
    def __enter__(self) -> "Stopwatch":
        self.start = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self.start


def test_a_silent_client_is_closed(serve: Any) -> None:
    served = serve(header_timeout_s=0.25)
    client = served.connect()
    with Stopwatch() as watch:
        assert client.closed()
    assert 0.2 <= watch.seconds < 5


@pytest.mark.parametrize("first", [b"G", GET[:-2]])
def test_a_half_head_is_a_408(serve: Any, first: bytes) -> None:
    served = serve(header_timeout_s=0.25)
    client = served.connect()
    client.send(GET)
    assert client.response().status == 200
    client.send(first)
    response = client.response()
    assert (response.status, response.error()["code"]) == (408, "header_timeout")
    assert client.closed()
    assert len(served.calls) == 1


def test_dripping_does_not_extend_the_head_timeout(serve: Any) -> None:
    served = serve(header_timeout_s=0.5)
    client = served.connect()
    with Stopwatch() as watch:
        for byte in GET:
            client.send(bytes([byte]))
            time.sleep(0.1)
            if client.socket in ready(client):
                break
        assert client.response().status == 408
    assert 0.4 <= watch.seconds < 5


def ready(client: Any) -> list[Any]:
    import select

    return select.select([client.socket], [], [], 0)[0]


@pytest.mark.parametrize("head", [POST % 10, POST % 100_000, GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_stalled_body_is_a_408(serve: Any, head: bytes) -> None:
    served = serve(body_timeout_s=0.25)
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        told.append(message["type"])

    served.app = app
    client = served.connect()
    response = client.send(head + b"1").response()
    assert (response.status, response.error()["code"]) == (408, "body_timeout")
    assert client.closed()
    served.wait(lambda: len(told) == len(served.calls))


def test_a_dripping_body_is_a_408(serve: Any) -> None:
    """Each byte comes in time, but the rate is below the least."""
    served = serve(body_timeout_s=0.25, min_body_rate=1_000)
    client = served.connect()
    client.send(POST % 1_000)
    with Stopwatch() as watch:
        while not ready(client):
            client.send(b"x")
            time.sleep(0.05)
        assert client.response().status == 408
    assert 0.2 <= watch.seconds < 5
    assert served.calls == []


def test_a_body_above_the_least_rate_may_take_its_time(serve: Any) -> None:
    served = serve(body_timeout_s=0.6, min_body_rate=10)
    client = served.connect()
    client.send(POST % 40)
    for _ in range(20):
        time.sleep(0.05)
        client.send(b"xx")
    assert client.response().body == b"x" * 40


def test_no_timeout_runs_while_the_app_does_not_read(serve: Any) -> None:
    import asyncio

    served = serve(body_timeout_s=0.5)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1.1)
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % size})

    served.app = app
    client = served.connect(10)
    client.send(POST % 20_000_000 + b"x" * 20_000_000)
    assert client.response().body == b"20000000"
    client.send((POST % 4)[:-2] + b"Expect: 100-continue\r\n\r\n")
    assert client.response().status == 100
    assert client.send(b"body").response().body == b"4"


def test_an_idle_connection_is_closed(serve: Any) -> None:
    served = serve(keep_alive_s=0.25)
    client = served.connect()
    client.send(GET).response()
    with Stopwatch() as watch:
        assert client.closed()
    assert 0.2 <= watch.seconds < 5


def test_a_line_end_behind_a_body_is_no_request(serve: Any) -> None:
    """Some old clients send one. An answer to it would be taken for that of their next request."""
    served = serve(header_timeout_s=0.5)
    client = served.connect()
    client.send(GET + b"\r\n").response()
    assert client.closed()
    again = served.connect()
    again.send(GET + b"\r\n").response()
    assert again.send(GET).response().status == 200


def test_a_slow_app_is_not_timed_out(serve: Any) -> None:
    import asyncio

    served = serve(header_timeout_s=0.1, body_timeout_s=0.1, keep_alive_s=0.1, write_timeout_s=0.1, linger_s=0.1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.6)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    served.app = app
    assert served.ask(GET).body == b"late"


class Flood:
    """An app that streams without an end, and what became of it."""

    def __init__(self) -> None:
        self.sent = 0
        self.disconnected = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = scope["extensions"]["tidegate"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not exchange.disconnected:
            await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
            self.sent += 50_000
        self.disconnected = True


def test_a_reader_that_takes_nothing_is_dropped(serve: Any) -> None:
    """And until then, sending waits: what the server holds for it is bounded."""
    served = serve(write_timeout_s=0.5)
    served.app = flood = Flood()
    client = served.connect()
    client.send(GET)
    served.wait(lambda: served.calls)
    (connection,) = served.server.server_state.connections
    time.sleep(0.2)
    assert connection.transport.get_write_buffer_size() < 300_000
    served.wait(lambda: flood.disconnected)
    served.wait(lambda: not served.server.server_state.connections)


def test_a_slow_reader_is_not_dropped(serve: Any) -> None:
    served = serve(write_timeout_s=0.8)
    served.app = flood = Flood()
    client = served.connect()
    client.send(GET)
    end = time.monotonic() + 1.8
    while time.monotonic() < end:
        assert client.socket.recv(400_000)
        time.sleep(0.05)
    assert not flood.disconnected


@pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"])
def test_a_large_answer_may_take_its_time(serve: Any, ending: bytes) -> None:
    """The server is never free to write more within the time-out, but the client takes some each time."""
    served = serve(write_timeout_s=0.5, keep_alive_s=0.2)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 30_000_000})

    served.app = app
    client = served.connect().send(GET[:-2] + ending + b"\r\n")
    size = 0
    while size < 30_000_000:
        data = client.socket.recv(1_000_000)
        assert data, f"cut after {size} bytes"
        size += len(data)
        time.sleep(0.03)


def test_a_reader_that_leaves_the_last_bytes_is_dropped(serve: Any) -> None:
    """The application is done, the connection is to close, but what is left can't be written."""
    served = serve(write_timeout_s=0.4, linger_s=0.2)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 20_000_000})

    served.app = app
    kept = served.connect().send(GET)
    closing = served.connect().send(GET[:-2] + b"Connection: close\r\n\r\n")
    served.wait(lambda: len(served.calls) == 2)
    served.wait(lambda: not served.server.server_state.connections)
    assert len(kept.rest()) < 20_000_000
    assert len(closing.rest()) < 20_000_000


def test_a_client_that_never_reads_its_refusal_is_let_go(serve: Any) -> None:
    served = serve(linger_s=0.3)
    client = served.connect()
    client.send(b"nonsense\r\n\r\n")
    served.wait(lambda: served.server.server_state.connections)
    served.wait(lambda: not served.server.server_state.connections)


def test_the_sweeper_sleeps_when_there_is_nobody(serve: Any) -> None:
    served = serve()
    served.ask(GET)
    served.hang_up()
    wire = served.server.server_state.tidegate_wire
    served.wait(lambda: wire.sweeper._timer is None)
