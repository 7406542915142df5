"""What is remembered of a head on one connection never serves another caller, nor one whose key is gone."""

from __future__ import annotations

import http.client
import json
from typing import Any, Self

CONFIG = """
[clients.ann]
models = ["demo-small"]
quota = { requests = ["100000/minute"] }
[[clients.ann.keys]]
secret = "tg-test-key-of-ann"
[clients.bob]
models = ["demo-large"]
quota = { requests = ["100000/minute"] }
[[clients.bob.keys]]
secret = "tg-test-key-of-bob"
"""


class Connection:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._http.connect()
        self._socket = self._http.sock

    def ask(self, key: str, model: str, **headers: str) -> int:
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
        sent = {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}
        self._http.request("POST", "/v1/chat/completions", body, sent)
        answer = self._http.getresponse()
        answer.read()
        assert self._http.sock is self._socket, "the connection was kept"
        return answer.status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()


def test_each_request_is_its_own_callers(start: Any) -> None:
    with Connection(start(CONFIG).port) as connection:
        for _ in range(5):  # from the third on, its head is known
            assert connection.ask("tg-test-key-of-ann", "demo-small") == 200
        assert connection.ask("tg-test-key-of-ann", "demo-large") == 403
        for _ in range(5):
            assert connection.ask("tg-test-key-of-bob", "demo-large") == 200
        assert connection.ask("tg-test-key-of-bob", "demo-small") == 403
        assert connection.ask("tg-test-key-of-eve", "demo-small") == 401
        assert connection.ask("tg-test-key-of-ann", "demo-small") == 200
        assert connection.ask("tg-test-key-of-ann", "demo-small", **{"x-api-key": "tg-test-key-of-bob"}) == 401


def test_a_revoked_key_stops_on_its_open_connection(start: Any) -> None:
    server = start("")
    server.tidegate("clients", "create", "cal", "--json", "--config", str(server.config))
    key = server.tidegate("keys", "create", "cal", "--json", "--config", str(server.config))
    with Connection(server.port) as connection:
        for _ in range(5):
            assert connection.ask(key["secret"], "demo-small") == 200
        server.tidegate("keys", "revoke", key["id"], "--json", "--config", str(server.config))
        assert connection.ask(key["secret"], "demo-small") == 401
