"""HTTP/1.1 through the protocol class: what the application gets, and what the client gets back."""

import asyncio
import weakref
from typing import Any

import pytest

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def respond(*headers: tuple[bytes, bytes], status: int = 200, body: tuple[bytes, ...] = (b"ok",)) -> Any:
    """An app that answers this; each part of the body is a message of its own."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for number, part in enumerate(body, 1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(body)})

    return app


def test_the_scope_is_asgi_3(served: Any) -> None:
    client = served.connect()
    client.send(b"POST /v1/a%20b?x=1&y=%2F HTTP/1.1\r\nHost: x:80\r\nX-Two:  b \r\nContent-Length: 2\r\n\r\nhi")
    assert client.response().body == b"hi"
    scope = served.calls[0]
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.3"}
    assert (scope["http_version"], scope["method"], scope["scheme"]) == ("1.1", "POST", "http")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/v1/a b", b"/v1/a%20b", b"x=1&y=%2F")
    assert scope["headers"] == [(b"host", b"x:80"), (b"x-two", b"b"), (b"content-length", b"2")]
    assert scope["client"] == client.socket.getsockname()
    assert scope["server"] == ("127.0.0.1", served.port)
    assert (scope["root_path"], scope["state"]) == ("", {})
    assert scope["extensions"]["tidegate"].fields[b"x-two"] == b"b"


def test_root_path_is_put_before_the_path(serve: Any) -> None:
    served = serve({"root_path": "/gate"})
    served.ask(GET)
    scope = served.calls[0]
    assert (scope["path"], scope["raw_path"], scope["root_path"]) == ("/gate/a", b"/gate/a", "/gate")


@pytest.mark.parametrize("size", [0, 1, 60_000, 300_000])
def test_bodies_of_any_size_arrive(served: Any, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    client = served.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + body)
    assert client.response().body == body
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (body[i : i + 5000] for i in range(0, size, 5000))
    )
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert client.response().body == body


def test_a_body_that_came_with_its_head_is_one_message(served: Any) -> None:
    messages = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.append(await receive())
        await respond()(scope, receive, send)

    served.app = app
    served.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
    assert messages == [{"type": "http.request", "body": b"body", "more_body": False}]


def test_a_small_body_is_awaited_before_the_app_starts(served: Any) -> None:
    client = served.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo")
    other = served.connect()
    assert other.send(GET).response().status == 200
    assert len(served.calls) == 1
    assert client.send(b"dy").response().body == b"body"


def test_requests_on_one_connection_are_served_in_order(served: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.02 if scope["path"] == "/slow" else 0)
        await respond(body=(scope["path"].encode(),))(scope, receive, send)

    served.app = app
    client = served.connect()
    paths = [b"/slow", b"/b", b"/slow", b"/d"]
    client.send(b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths))
    assert [client.response().body for _ in paths] == paths
    assert len({call["client"] for call in served.calls}) == 1


def test_pipelined_requests_are_bounded(served: Any) -> None:
    """What a client may have waiting behind its running request is bounded; the rest stays in its own buffers."""
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/hold":
            await release.wait()
        await respond()(scope, receive, send)

    served.app = app
    client = served.connect()
    client.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
    served.wait(lambda: served.calls)
    request = b"GET /b HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"y" * 900)
    taken = client.fill(request)
    (connection,) = served.server.server_state.connections
    assert len(connection._pending) < 4 * served.limits.max_header_bytes + 262_144
    connection.loop.call_soon_threadsafe(release.set)
    whole = taken // len(request)
    assert [client.response().status for _ in range(whole + 1)] == [200] * (whole + 1)


def test_a_connection_serves_on_while_the_last_app_still_runs(served: Any) -> None:
    """What an app does after its response does not hold up the connection."""
    release = asyncio.Event()
    done = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond()(scope, receive, send)
        if scope["path"] == "/a":
            await release.wait()
            done.append(1)

    served.app = app
    client = served.connect()
    assert client.send(GET).response().status == 200
    assert client.send(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n").response().status == 200
    (connection,) = served.server.server_state.connections
    connection.loop.call_soon_threadsafe(release.set)
    served.wait(lambda: done)
    assert client.send(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n").response().status == 200
    client.close()
    served.wait(lambda: not served.server.server_state.tasks)


@pytest.mark.parametrize(
    ("request_head", "persists", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", True, None),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", True, None),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False, "close"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: foo , Close\r\n\r\n", False, "close"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", False, "close"),
        (b"GET / HTTP/1.0\r\n\r\n", False, "close"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True, "keep-alive"),
    ],
)
def test_connections_persist_as_asked(served: Any, request_head: bytes, persists: bool, says: str | None) -> None:
    client = served.connect()
    response = client.send(request_head).response()
    assert response.status == 200
    assert response.headers.get("connection") == says
    if persists:
        assert client.send(GET).response().status == 200
    else:
        assert client.closed()


def test_the_app_may_ask_to_close(served: Any) -> None:
    served.app = respond((b"connection", b"close"))
    client = served.connect()
    response = client.send(GET).response()
    assert response.headers["connection"] == "close"
    assert client.closed()


def test_a_whole_body_gets_its_length_and_a_streamed_one_chunks(served: Any) -> None:
    client = served.connect()
    served.app = respond(body=(b"whole",))
    response = client.send(GET).response()
    assert (response.headers["content-length"], response.body) == ("5", b"whole")
    served.app = respond(body=(b"a", b"", b"bc", b""))
    response = client.send(GET).response()
    assert "content-length" not in response.headers
    assert (response.headers["transfer-encoding"], response.chunks) == ("chunked", [b"a", b"bc"])
    served.app = respond((b"Content-Length", b"3"), (b"transfer-encoding", b"chunked"), body=(b"a", b"bc"))
    response = client.send(GET).response()
    assert (response.headers["content-length"], response.body) == ("3", b"abc")
    assert "transfer-encoding" not in response.headers


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(served: Any) -> None:
    served.app = respond(body=(b"a", b"bc"))
    client = served.connect()
    response = client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").response()
    assert (response.headers["connection"], response.body) == ("close", b"abc")
    assert "transfer-encoding" not in response.headers


def test_head_204_and_304_have_no_body(served: Any) -> None:
    client = served.connect()
    served.app = respond((b"content-length", b"2"))
    response = client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").response(head_only=True)
    assert response.headers["content-length"] == "2"
    served.app = respond(body=(b"a", b"b"))
    response = client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").response(head_only=True)
    assert "transfer-encoding" not in response.headers
    served.app = respond((b"content-length", b"0"), status=204, body=(b"",))
    response = client.send(GET).response()
    assert response.line == "HTTP/1.1 204 No Content"
    assert "content-length" not in response.headers
    served.app = respond((b"etag", b"x"), status=304, body=(b"never sent",))
    assert client.send(GET).response().status == 304
    served.app = respond()
    assert client.send(GET).response().body == b"ok"


def test_the_date_is_there_once(served: Any) -> None:
    served.app = respond((b"date", b"then"), (b"x", b"1"), (b"x", b"2"))
    pairs = served.ask(GET).pairs
    assert [value for name, value in pairs if name == "date"] == ["then"]
    assert [value for name, value in pairs if name == "x"] == ["1", "2"]
    served.app = respond()
    dates = [value for name, value in served.ask(GET).pairs if name == "date"]
    assert len(dates) == 1
    assert dates[0].endswith("GMT")


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x y", b"a"),
        (b"x:y", b"a"),
        (b"x\r\ny", b"a"),
        (b"", b"a"),
        (b"content-length", b"-1"),
        (b"content-length", b"1, 2"),
        (b"transfer-encoding", b"gzip"),
    ],
)
def test_no_header_is_injected_into_a_response(served: Any, server_log: Any, header: tuple[bytes, bytes]) -> None:
    served.app = respond(header)
    client = served.connect()
    response = client.send(GET).response()
    assert response.status == 500
    assert response.error()["code"] == "internal_error"
    assert client.closed()
    assert "RuntimeError" in server_log.text


def test_a_failing_app_is_a_500_without_its_traceback(served: Any, server_log: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("secret")

    served.app = app
    response = served.ask(GET)
    assert response.status == 500
    assert response.error()["type"] == "server_error"
    assert b"secret" not in response.body
    assert "ValueError: secret" in server_log.text


def test_an_app_that_answers_nothing_is_a_500(served: Any, server_log: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    served.app = app
    assert served.ask(GET).status == 500


@pytest.mark.parametrize("headers", [(), ((b"content-length", b"9"),)])
def test_a_response_cut_short_does_not_look_whole(served: Any, server_log: Any, headers: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        raise ValueError

    served.app = app
    client = served.connect().send(GET)
    assert b"0\r\n\r\n" not in client.rest().partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("parts", [(b"four", b"five!"), (b"abc",)])
def test_a_body_unlike_its_content_length_is_refused(served: Any, server_log: Any, parts: tuple[bytes, ...]) -> None:
    served.app = respond((b"content-length", b"8"), body=parts)
    client = served.connect().send(GET)
    assert b"five!" not in client.rest()
    assert "content-length" in server_log.text


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.body", "body": b""}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.start", "status": 200}],
        [{"type": "http.response.start", "status": 101}, {"type": "http.response.body"}],
        [{"type": "websocket.send"}],
    ],
)
def test_messages_out_of_order_are_errors(served: Any, server_log: Any, messages: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    served.app = app
    assert served.ask(GET).status == 500
    assert "RuntimeError" in server_log.text


def test_100_continue_is_sent_when_the_app_wants_the_body(served: Any) -> None:
    client = served.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert client.response().status == 100
    assert client.send(b"body").response().body == b"body"
    assert client.send(GET).response().status == 200


def test_no_100_continue_if_the_app_refuses_or_the_body_is_here(served: Any) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    assert served.ask(head + b"body").body == b"body"
    served.app = respond(status=401)
    client = served.connect().send(head)
    response = client.response()
    assert (response.status, response.headers["connection"]) == (401, "close")
    assert client.closed()


def test_an_unread_small_body_does_not_cost_the_connection(served: Any) -> None:
    served.app = respond(status=401)
    client = served.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    response = client.response()
    assert "connection" not in response.headers
    client.send(b"x" * 100_000)
    assert client.send(GET).response().status == 401


@pytest.mark.parametrize("before", [1, 40_000, 70_000, 150_000])
def test_what_came_before_the_answer_does_not_stop_the_rest_from_being_read(served: Any, before: int) -> None:
    """More than is buffered for an app that wants none of it: the connection stood still for ever."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        exchange = scope["extensions"]["tidegate"]
        while exchange.buffered < min(before, 65_537):
            await asyncio.sleep(0.001)
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    served.app = refuse
    client = served.connect()
    size = before + 200_000
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + bytes(before))
    assert client.response().status == 401
    served.app = respond()
    client.send(bytes(size - before) + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.response().status == 200


@pytest.mark.parametrize("framing", [b"Content-Length: 900000", b"Transfer-Encoding: chunked"])
def test_an_unread_large_body_ends_the_connection_but_not_the_answer(served: Any, framing: bytes) -> None:
    """The client, which is still sending, must be able to read why: it gets no reset before that."""
    served.app = respond(status=413)
    client = served.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
    served.wait(lambda: served.calls)
    client.send(b"100000\r\n" + b"x" * 700_000)
    response = client.response()
    assert (response.status, response.headers["connection"]) == (413, "close")
    assert client.closed()


def test_an_app_reads_a_large_body_at_its_own_pace(served: Any) -> None:
    """Reading pauses when the application does not take what came."""
    release = asyncio.Event()
    sizes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        more = True
        while more:
            message = await receive()
            sizes.append(len(message["body"]))
            more = message["more_body"]
        await respond()(scope, receive, send)

    served.app = app
    client = served.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
    served.wait(lambda: served.calls)
    (connection,) = served.server.server_state.connections
    sent = client.fill(b"x" * 100_000)
    assert connection.exchange.buffered < 1_000_000
    connection.loop.call_soon_threadsafe(release.set)
    client.send(b"x" * (30_000_000 - sent))
    assert client.response().body == b"ok"
    assert sum(sizes) == 30_000_000


def test_requests_are_counted_and_tasks_end(serve: Any) -> None:
    served = serve()
    client = served.connect()
    for _ in range(3):
        client.send(GET).response()
    assert served.server.server_state.total_requests == 3
    assert len(served.server.server_state.tasks) == 1
    client.close()
    served.wait(lambda: not served.server.server_state.tasks and not served.server.server_state.connections)


def test_an_idle_connection_keeps_nothing_of_its_requests(served: Any) -> None:
    """10,000 idle connections must not hold 10,000 bodies."""
    kept = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept.append(weakref.ref(scope["extensions"]["tidegate"]))
        await echo(scope, receive, send)

    echo = served.app
    served.app = app
    client = served.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody").response()
    served.calls.clear()
    served.wait(lambda: kept[0]() is None)


def test_stock_uvicorn_stays_selectable(serve: Any) -> None:
    served = serve({"http": "httptools"})
    assert served.ask(GET).status == 200
    assert "extensions" not in served.calls[0]
