"""The control API over sockets: the figures of pools, queue and providers, in our shapes and in the old ones."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

CONFIG = """
[providers.held]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
max_concurrent = 1
[models.m]
targets = ["held/m"]
[models.taker]
targets = ["held/m"]
pools = { mail = 60 }
[models.closer]
targets = ["held/m-closer"]
pools = { closed = 1 }
[models.daily]
targets = ["held/m"]
pools = { daily = 5 }
[pools.closed]
unit = "requests"
capacity = 100
refill_per_s = 1
learn = true
[pools.daily]
unit = "reports"
capacity = 100
refill_per_s = 1
windows = ["7/day"]
[pools.mail]
unit = "emails"
capacity = 100
refill_per_s = 0.001
reserved_percent = 0
[tiers.basic]
quota = { requests = ["100000/minute"] }
[pools.gpt4]
unit = "tokens"
capacity = 10000
refill_per_s = 100
reserved_percent = 10
windows = ["1000000/day"]
[clients.one]
[[clients.one.keys]]
secret = "tg-one-client-key"
[[clients.one.keys]]
secret = "tg-one-service-key"
role = "service"
[[clients.one.keys]]
secret = "tg-one-viewer-key"
role = "viewer"
[clients.two]
[[clients.two.keys]]
secret = "tg-two-client-key"
"""
VIEWER, SERVICE, CLIENT, ADMIN = "tg-one-viewer-key", "tg-one-service-key", "tg-one-client-key", "tg-test-admin-key"
READ = (
    "/control/v1/pools",
    "/control/v1/queue",
    "/control/v1/providers",
    "/status",
    "/api/resources/availability",
    "/api/queue/status",
)
LEVELS = ["immediate", "fast", "normal", "batch", "deferred"]


class Held:
    """An upstream that answers once it is let go."""

    def __init__(self) -> None:
        self.go = Event()
        held = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["content-length"]))
                held.go.wait(20)
                if b"m-closer" in asked:
                    self.send_response(429)
                    self.send_header("retry-after", "1800")
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                body = b'{"object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 1}}'
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()


@pytest.fixture(scope="module")
def held() -> Iterator[Held]:
    upstream = Held()
    yield upstream
    upstream.go.set()
    upstream.server.shutdown()
    upstream.thread.join()
    upstream.server.server_close()


@pytest.fixture(scope="module")
def watched(start_module: Any, held: Held, tmp_path_factory: pytest.TempPathFactory) -> Any:
    origin = f"http://127.0.0.1:{held.server.server_address[1]}"
    return start_module(tmp_path_factory.mktemp("control"), CONFIG.replace("{origin}", origin))


def asked(gateway: Any, path: str, body: Any = None, key: str | None = SERVICE) -> tuple[int, Any]:
    method = "GET" if body is None else "POST"
    status, headers, raw = gateway.request(method, path, body, key=key)
    assert headers["x-request-id"]
    assert headers["content-type"] == "application/json"
    return status, json.loads(raw)


@pytest.fixture
def waiting(watched: Any, held: Held) -> Iterator[str]:
    """The request id of a call that waits behind another."""
    chat = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    held.go.clear()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(watched.request, "POST", "/v1/chat/completions", chat, CLIENT) for _ in "ab"]
        try:
            deadline = time.monotonic() + 10
            while not (page := asked(watched, "/control/v1/queue")[1])["total"] and time.monotonic() < deadline:
                time.sleep(0.01)
            yield page["waiting"][0]["id"]
        finally:
            held.go.set()
        assert [call.result()[0] for call in calls] == [200, 200]


@pytest.mark.parametrize("key", [VIEWER, SERVICE, ADMIN])
def test_operators_may_read(watched: Any, key: str) -> None:
    for path in READ:
        assert asked(watched, path, key=key)[0] == 200, path
    assert asked(watched, "/api/resources/check", {"resourceType": "gpt4", "amount": 1}, key)[0] == 200


@pytest.mark.parametrize("path", [*READ, "/control/v1/queue/", "/control/v1/queue/x/y", "/control/none"])
def test_nobody_else_may(watched: Any, path: str) -> None:
    for key in (None, "tg-unknown-key"):
        status, body = asked(watched, path, key=key)
        assert (status, body["code"], set(body)) == (401, "invalid_api_key", {"error", "code", "request_id"})
    status, body = asked(watched, path, key=CLIENT)
    assert (status, body["code"]) == (403, "permission_denied")


PLACES = ("/control/v1/queue/", "/api/queue/position/")


@pytest.mark.parametrize("path", PLACES)
def test_clients_may_read_the_place_of_their_own_calls(watched: Any, waiting: str, path: str) -> None:
    own, whole = asked(watched, path + waiting, key=CLIENT), asked(watched, path + waiting)
    assert own[0] == 200
    assert set(own[1]) == set(whole[1])
    assert asked(watched, path + waiting, key=None)[0] == 401
    others = asked(watched, path + waiting, key="tg-two-client-key")
    unknown = asked(watched, path + "unknown", key="tg-two-client-key")
    assert (others[0], unknown[0]) == (404, 404)
    for body in (others[1], unknown[1]):
        body.pop("request_id", None)
    assert json.dumps(others[1]).replace(waiting, "unknown") == json.dumps(unknown[1]), "as if it did not wait"


def test_other_paths_and_methods(watched: Any) -> None:
    assert asked(watched, "/control/v1/none")[0] == 404
    assert asked(watched, "/control/v1/pools", {})[0] == 405
    assert asked(watched, "/api/resources/check")[0] == 405
    assert asked(watched, "/control/v1/queue?limit=x")[0] == 400


def test_pools(watched: Any) -> None:
    pools = {row["name"]: row for row in asked(watched, "/control/v1/pools")[1]["pools"]}
    assert pools["gpt4"]["unit"] == "tokens"
    assert pools["gpt4"]["shared"]["capacity"] == 9000
    assert pools["gpt4"]["reserved"]["capacity"] == 1000
    assert pools["gpt4"]["windows"][0]["limit"] == 1_000_000


def test_providers(watched: Any, waiting: str) -> None:
    rows = asked(watched, "/control/v1/providers")[1]["providers"]
    assert {row["state"] for row in rows} == {"closed"}
    assert any(row["model"] for row in rows)


def test_queue_and_place(watched: Any, waiting: str) -> None:
    page = asked(watched, "/control/v1/queue")[1]
    assert list(page["levels"]) == LEVELS
    assert (page["executing"], page["total"]) == (1, 1)
    status, view = asked(watched, f"/control/v1/queue/{waiting}")
    assert (status, view["client"], view["position"], view["urgency"]) == (200, "one", 0, "normal")
    status, body = asked(watched, "/control/v1/queue/unknown")
    assert (status, body["code"]) == (404, "not_found")


def test_old_status(watched: Any) -> None:
    page = asked(watched, "/status")[1]
    assert set(page) == {"resources", "queues", "timestamp"}
    assert page["resources"]["gpt4"] == {
        "shared": {"available": 9000, "capacity": 9000, "percentage": 100},
        "reserved": {"available": 1000, "capacity": 1000, "percentage": 100},
    }
    assert page["queues"] == {name: {"depth": 0, "oldest": 0, "starved": 0} for name in LEVELS}
    assert datetime.fromisoformat(page["timestamp"]).tzinfo is not None
    assert asked(watched, "/api/resources/availability")[1] == {"availability": page["resources"]}


def test_old_check(watched: Any) -> None:
    pools = asked(watched, "/status")[1]["resources"]["gpt4"]

    def ask(**body: Any) -> tuple[int, Any]:
        return asked(watched, "/api/resources/check", body)

    assert ask(resourceType="gpt4", amount=9000) == (200, {"available": True, "waitTime": 0, "pools": pools})
    assert ask(resource_type="gpt4", amount=9000)[1]["available"] is True
    assert ask(resourceType="gpt4", amount=9001) == (
        200,
        {"available": False, "waitTime": None, "currentlyAvailable": 9000, "required": 9001},
    )
    assert ask(resourceType="none", amount=1) == (404, {"available": False, "reason": "unknown_resource"})
    for bad in ({"amount": 1}, {"resourceType": "gpt4"}, {"resourceType": "gpt4", "amount": -1}):
        assert ask(**bad)[0] == 400


def test_old_check_of_what_comes_back(watched: Any, held: Held) -> None:
    """A unit takes a thousand seconds here."""
    held.go.set()
    chat = {"model": "taker", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    assert watched.request("POST", "/v1/chat/completions", chat, CLIENT)[0] == 200
    status, said = asked(watched, "/api/resources/check", {"resourceType": "mail", "amount": 50})
    assert (status, said) == (
        200,
        {"available": False, "waitTime": said["waitTime"], "currentlyAvailable": 40, "required": 50},
    )
    assert 9_900_000 < said["waitTime"] <= 10_000_000


def test_what_the_provider_closed_is_not_available(watched: Any, held: Held) -> None:
    held.go.set()
    chat = {"model": "closer", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    assert watched.request("POST", "/v1/chat/completions", chat, "tg-two-client-key")[0] == 429
    said = asked(watched, "/api/resources/check", {"resourceType": "closed", "amount": 1})[1]
    assert (said["available"], said["required"]) == (False, 1)
    assert 1_700_000 < said["waitTime"] <= 1_800_000
    pools = {row["name"]: row for row in asked(watched, "/control/v1/pools")[1]["pools"]}
    assert 1_700_000 < pools["closed"]["closed_ms"] <= 1_800_000
    assert pools["gpt4"]["closed_ms"] == 0
    shown = watched.command("status", "--once", "-c", str(watched.config)).stdout
    assert "closed 29 min" in shown or "closed 30 min" in shown


def test_a_windows_end_bounds_what_is_available(watched: Any, held: Held) -> None:
    held.go.set()
    chat = {"model": "daily", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    assert watched.request("POST", "/v1/chat/completions", chat, "tg-two-client-key")[0] == 200
    assert asked(watched, "/api/resources/check", {"resourceType": "daily", "amount": 2})[1]["available"] is True
    said = asked(watched, "/api/resources/check", {"resourceType": "daily", "amount": 3})[1]
    assert (said["available"], said["currentlyAvailable"]) == (False, 2)
    assert 80_000_000 < said["waitTime"] < 90_000_000
    assert asked(watched, "/api/resources/check", {"resourceType": "daily", "amount": 8})[1]["waitTime"] is None
    assert asked(watched, "/api/resources/check", {"resourceType": "daily", "amount": 2})[1]["available"] is True


def test_old_queue(watched: Any, waiting: str) -> None:
    page = asked(watched, "/api/queue/status")[1]
    assert list(page) == [*LEVELS, "executing", "total"]
    assert (page["executing"], page["total"], sum(page[name]["depth"] for name in LEVELS)) == (1, 1, 1)
    status, place = asked(watched, f"/api/queue/position/{waiting}")
    assert status == 200
    assert {"requestId", "status", "queue", "priority", "estimatedWait", "queuedAt"} <= set(place)
    assert (place["requestId"], place["status"]) == (waiting, "queued")
    assert place["priority"] in (29, 30), "one less after ten requests"
    assert abs(datetime.fromisoformat(place["queuedAt"]).timestamp() - time.time()) < 10
    assert asked(watched, "/api/queue/position/unknown")[0] == 404


def test_status_on_a_terminal(watched: Any, waiting: str) -> None:
    page = watched.tidegate("status", "--json", "-c", str(watched.config))
    assert page["queue"]["total"] == 1
    shown = watched.command("status", "--once", "-c", str(watched.config))
    assert shown.returncode == 0, shown.stderr
    assert "gpt4" in shown.stdout
    assert waiting in shown.stdout


def test_status_of_nothing(watched: Any, tmp_path: Path) -> None:
    done = watched.command("status", "--once", "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert "No gateway is running" in done.stderr
