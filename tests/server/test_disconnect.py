"""A client that leaves: the application learns it at once, however it waits."""

import asyncio
import struct
from socket import SHUT_WR, SO_LINGER, SOL_SOCKET
from typing import Any

import pytest

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def leave(client: Any, how: str) -> None:
    """Close in order, or with a reset."""
    if how == "reset":
        client.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("started", [False, True])
def test_receive_tells(served: Any, how: str, started: bool) -> None:
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        told.append("waits")
        told.append((await receive())["type"])
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})  # dropped silently
        told.append("sent")

    served.app = app
    client = served.connect().send(GET)
    served.wait(lambda: told)
    leave(client, how)
    served.wait(lambda: told == ["waits", "http.disconnect", "sent"])


def test_all_who_wait_are_told(served: Any) -> None:
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        told.append("waits")
        told.extend(message["type"] for message in await asyncio.gather(receive(), receive()))

    served.app = app
    client = served.connect().send(GET)
    served.wait(lambda: told)
    client.close()
    served.wait(lambda: told == ["waits", "http.disconnect", "http.disconnect"])


def test_callbacks_are_called_once_and_at_once(served: Any, server_log: Any) -> None:
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange = scope["extensions"]["tidegate"]
        gone = asyncio.Event()
        exchange.on_disconnect(lambda: 1 / 0)
        exchange.on_disconnect(gone.set)
        told.append(exchange.disconnected)
        await gone.wait()
        told.append(exchange.disconnected)
        exchange.on_disconnect(lambda: told.append("late"))

    served.app = app
    client = served.connect().send(GET)
    served.wait(lambda: told)
    client.close()
    served.wait(lambda: told == [False, True, "late"])
    assert "ZeroDivisionError" in server_log.text


def test_waiting_ends_with_the_response(served: Any) -> None:
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
        told.append((await waiting)["type"])

    served.app = app
    client = served.connect().send(GET)
    client.response()
    served.wait(lambda: told == ["http.disconnect"])


def test_a_client_that_ends_its_side_has_left(served: Any) -> None:
    """Even while it takes nothing of what is written to it."""
    state = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange = state["exchange"] = scope["extensions"]["tidegate"]
        exchange.on_disconnect(lambda: state.update(told=True))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not exchange.disconnected:
            await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})

    served.app = app
    client = served.connect().send(GET)
    served.wait(lambda: state and state["exchange"]._connection.outflow.paused)
    client.socket.shutdown(SHUT_WR)
    served.wait(lambda: "told" in state)


def test_no_callback_after_a_whole_response(served: Any) -> None:
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange = scope["extensions"]["tidegate"]
        exchange.on_disconnect(lambda: told.append("gone"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
        told.append((await receive())["type"])
        told.append(exchange.disconnected)

    served.app = app
    client = served.connect().send(GET)
    client.response()
    client.close()
    served.wait(lambda: not served.server.server_state.connections)
    assert told == ["http.disconnect", False]


def test_a_stream_under_back_pressure_is_told(served: Any) -> None:
    """It waits in send(), for room that will never come."""
    state = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange = state["exchange"] = scope["extensions"]["tidegate"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not exchange.disconnected:
            await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
        state["told"] = True

    served.app = app
    client = served.connect().send(GET)
    served.wait(lambda: state and state["exchange"]._connection.outflow.paused)
    leave(client, "reset")
    served.wait(lambda: "told" in state)


def test_leaving_while_sending_the_body(served: Any) -> None:
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            told.append(message["more_body"])
        told.append(message["type"])

    served.app = app
    client = served.connect().send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc")
    served.wait(lambda: told)
    client.close()
    served.wait(lambda: told == [True, "http.disconnect"])


def test_leaving_before_a_small_body_is_whole_starts_nothing(served: Any) -> None:
    client = served.connect().send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    served.wait(lambda: served.server.server_state.connections)
    client.close()
    served.wait(lambda: not served.server.server_state.connections)
    assert served.calls == []


def test_a_pipelining_client_that_leaves_is_noticed(served: Any) -> None:
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        told.append("waits")
        told.append((await receive())["type"])

    served.app = app
    client = served.connect().send(GET * 3)
    served.wait(lambda: told)
    client.close()
    served.wait(lambda: told == ["waits", "http.disconnect"])
    assert len(served.calls) == 1
