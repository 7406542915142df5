"""Protocol errors: answered in JSON, connection closed, and nothing reaches the application."""

import json
import time
from typing import Any

import pytest

HOST = b"Host: x\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST


def chunked(body: bytes) -> bytes:
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + body


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "no version": (b"GET /\r\n\r\n", 400, "malformed_request"),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_request"),
    "tab for space": (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_request"),
    "control in the first line": (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_request"),
    "bad method": (b"G{T / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_request"),
    "HTTP/2's preface": (b"PRI * HTTP/1.1\r\nHost: x\r\n\r\n", 501, "unsupported_method"),
    "no method's length": (b"B" * 33 + b" / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "unsupported_method"),
    "lower-case method": (b"Get / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "unsupported_method"),
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "unsupported_method"),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 501, "unsupported_method"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unsupported_http_version"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505, "unsupported_http_version"),
    "bad version": (b"GET / HTTP/1.1x\r\nHost: x\r\n\r\n", 400, "malformed_request"),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00", 400, "malformed_request"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400, "repeated_header"),
    "empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "bad_host"),
    "bad Host": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad_host"),
    "Host with user": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, "bad_host"),
    "encoded slash": (b"GET /a%2fb HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request_target"),
    "dot segment": (b"GET /a/../b HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request_target"),
    "other host in the URL": (b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request_target"),
    "long target": (b"GET /" + b"a" * 8_192 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
    "endless target": (b"GET /" + b"a" * 9_000, 414, "uri_too_long"),
    "many headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431, "too_many_headers"),
    "large headers": (b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", 431, "headers_too_large"),
    "endless headers": (b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000, 431, "headers_too_large"),
    "folded line": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400, "malformed_request"),
    "space before colon": (b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400, "malformed_request"),
    "no colon": (b"GET / HTTP/1.1\r\nHost: x\r\nAb\r\n\r\n", 400, "malformed_request"),
    "no name": (b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", 400, "malformed_request"),
    "NUL": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 400, "malformed_request"),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400, "malformed_request"),
    "bare LF": (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400, "malformed_request"),
    "bare LF, no end": (b"GET / HTTP/1.1\nHost: x\n\n", 400, "malformed_request"),
    "signed length": (POST + b"Content-Length: +3\r\n\r\nabc", 400, "bad_content_length"),
    "length list": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400, "bad_content_length"),
    "octal length": (POST + b"Content-Length: 03\r\n\r\nabc", 400, "bad_content_length"),
    "empty length": (POST + b"Content-Length:\r\n\r\n", 400, "bad_content_length"),
    "huge length": (POST + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n", 400, "bad_content_length"),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, "repeated_header"),
    "large length": (POST + b"Content-Length: 33554433\r\n\r\n", 413, "request_too_large"),
    "length and coding": (
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "ambiguous_length",
    ),
    "two codings": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "repeated_header",
    ),
    "gzip coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "unsupported_transfer_encoding"),
    "coding in 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_transfer_encoding"),
    "two credentials": (
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
        400,
        "repeated_header",
    ),
    "two wishes": (
        POST + b"Content-Length: 1\r\nX-Tidegate-Allow-Downgrade: false\r\nX-Tidegate-Allow-Downgrade: true\r\n\r\n1",
        400,
        "repeated_header",
    ),
    "unknown expectation": (POST + b"Expect: tea\r\nContent-Length: 1\r\n\r\n", 417, "unknown_expectation"),
    "WebSocket": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
        501,
        "websocket_not_supported",
    ),
    "bad chunk size": (chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), 400, "bad_chunk"),
    "space after chunk size": (chunked(b"3 \r\nabc\r\n0\r\n\r\n"), 400, "bad_chunk"),
    "chunk too long": (chunked(b"3\r\nabcd\r\n0\r\n\r\n"), 400, "bad_chunk"),
    "chunk ended by LF": (chunked(b"3\nabc\r\n0\r\n\r\n"), 400, "bad_chunk"),
    "chunk ended by LF, no end": (chunked(b"3\nabc"), 400, "bad_chunk"),
    "chunk extension with LF": (chunked(b"3;a\n=b\r\nabc\r\n0\r\n\r\n"), 400, "bad_chunk"),
    "chunks too large": (chunked(b"2000001\r\n"), 413, "request_too_large"),
    "long chunk extension": (chunked(b"3;" + b"a" * 2_000), 431, "chunk_lines_too_large"),
    "tiny chunks": (chunked(b"1\r\nx\r\n" * 5_000), 400, "chunks_too_small"),
    "bad trailer": (chunked(b"0\r\nA : b\r\n\r\n"), 400, "bad_chunk"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_json_and_closed(served: Any, name: str) -> None:
    raw, status, code = REFUSED[name]
    client = served.connect()
    response = client.send(raw).response()
    error = response.error()
    assert (response.status, error["code"]) == (status, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"].endswith(".")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["connection"] == "close"
    assert "date" in response.headers
    assert client.closed()
    assert served.calls == []


def test_small_chunks_are_fine_if_they_are_few_or_others_are_larger(served: Any) -> None:
    body = chunked(b"1\r\nx\r\n" * 4_000 + b"8000\r\n" + b"y" * 32_768 + b"\r\n" + b"1\r\nx\r\n" * 500 + b"0\r\n\r\n")
    assert served.ask(body).body == b"x" * 4_000 + b"y" * 32_768 + b"x" * 500


def test_a_refusal_comes_after_what_was_asked_before(served: Any) -> None:
    client = served.connect()
    client.send(
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost : x\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    assert [client.response().status, client.response().status] == [200, 400]
    assert client.closed()
    assert [call["path"] for call in served.calls] == ["/a"]


def test_a_bad_chunk_after_the_app_began_ends_it(served: Any) -> None:
    """The app is told that the client is gone, the client why."""
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            told.append(message["body"])
        told.append(message["type"])

    served.app = app
    client = served.connect()
    client.send(chunked(b"3\r\nabc\r\n"))
    served.wait(lambda: told)
    response = client.send(b"zz\r\n").response()
    assert (response.status, response.error()["code"]) == (400, "bad_chunk")
    served.wait(lambda: told == [b"abc", "http.disconnect"])


def test_another_upgrade_is_ignored(served: Any) -> None:
    head = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
    )
    assert served.ask(head).status == 200


def test_one_empty_line_before_a_request_is_ignored(served: Any) -> None:
    client = served.connect()
    assert client.send(b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").response().status == 200
    assert client.send(b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").response().status == 400


def test_an_address_may_not_take_all_connections(serve: Any) -> None:
    served = serve(max_connections_per_address=3, uncapped=())
    clients = [served.connect() for _ in range(3)]
    served.wait(lambda: len(served.server.server_state.connections) == 3)
    extra = served.connect()
    response = extra.response()
    assert (response.status, response.error()["code"]) == (503, "too_many_connections")
    assert extra.closed()
    clients[0].close()
    extra.close()
    served.wait(lambda: len(served.server.server_state.connections) == 2)
    assert served.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").status == 200


def test_loopback_is_not_capped_by_default(serve: Any) -> None:
    served = serve(max_connections_per_address=2)
    clients = [served.connect() for _ in range(20)]
    assert [client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").response().status for client in clients] == [200] * 20


def test_uvicorns_concurrency_limit_is_kept(serve: Any) -> None:
    served = serve({"limit_concurrency": 2})
    clients = [served.connect() for _ in range(3)]
    served.wait(lambda: len(served.server.server_state.connections) == 3)
    response = clients[0].send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").response()
    assert (response.status, response.error()["code"]) == (503, "overloaded")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (b"/v1/messages", {"type", "error", "request_id"}),
        (b"/workers/echo/x", {"error", "code", "request_id"}),
        (b"/v1/chat/completions", {"error"}),
        (b"http://x/v1/messages", {"type", "error", "request_id"}),
        (b"/v1/messages/../messages", {"type", "error", "request_id"}),
    ],
)
@pytest.mark.parametrize("more", [b"a: " + b"b" * 70_000, b"upgrade: websocket", b"content-length: x"])
def test_it_is_in_the_dialect_of_the_path_with_an_id(served: Any, path: bytes, names: set[str], more: bytes) -> None:
    response = served.connect().send(b"POST " + path + b" HTTP/1.1\r\n" + HOST + more + b"\r\n\r\n").response()
    assert response.status in (400, 431, 501)
    page = json.loads(response.body)
    assert set(page) == names
    assert len(response.headers["x-request-id"]) == 36
    assert page.get("request_id", response.headers["x-request-id"]) == response.headers["x-request-id"]


def test_methods_of_webdav_reach_the_application(served: Any) -> None:
    for method in (b"PROPFIND", b"VERSION-CONTROL", b"QUERY"):
        assert served.ask(method + b" /workers/x HTTP/1.1\r\n" + HOST + b"\r\n").status == 200
    assert [call["method"] for call in served.calls] == ["PROPFIND", "VERSION-CONTROL", "QUERY"]


def test_a_method_in_small_letters_is_refused_for_that_however_it_is_cut(served: Any) -> None:
    client = served.connect().send(b"post / HTTP/1.1\r\n")
    time.sleep(0.05)
    response = client.send(b"Host: x\r\n\r\n").response()
    assert (response.status, response.error()["code"]) == (501, "unsupported_method")
    assert "capital letters" in response.error()["message"]
