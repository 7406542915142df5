"""The same over TLS, whose transport can't half-close."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def secure(serve: Any, tmp_path: Path) -> Any:
    """A TLS server; its clients speak TLS."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "key.pem")
    served = serve({"ssl_certfile": str(tmp_path / "key.pem")}, linger_s=0.3)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    plain = served.connect

    def connect() -> Any:
        client = plain()
        client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
        return client

    served.connect = connect
    return served


def test_requests_are_served(secure: Any) -> None:
    client = secure.connect()
    body = b"x" * 300_000
    client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert client.response().body == body
    assert client.send(GET).response().status == 200
    assert [call["scheme"] for call in secure.calls] == ["https", "https"]


def test_refusals_arrive_and_the_connection_ends(secure: Any) -> None:
    client = secure.connect()
    response = client.send(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n").response()
    assert (response.status, response.error()["code"]) == (400, "malformed_request")
    assert client.closed()


def test_leaving_is_noticed(secure: Any) -> None:
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        told.append("waits")
        told.append((await receive())["type"])

    secure.app = app
    client = secure.connect().send(GET)
    secure.wait(lambda: told)
    client.close()
    secure.wait(lambda: told == ["waits", "http.disconnect"])
