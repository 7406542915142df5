"""Identity, access and limits hold on every metered route: the tests are made from the route table itself."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.routes import TABLE

CONFIG = """
[providers.demo]
kind = "openai"
base_url = "{origin}/v1"
[providers.demo-anthropic]
kind = "anthropic"
base_url = "{origin}"
[models.demo-small]
targets = ["demo/demo-small", "demo-anthropic/demo-small"]
[workers.echo]
base_url = "{origin}/worker"
[clients.free]
org = "shared"
quota = {{ requests = ["100000/minute"] }}
[[clients.free.keys]]
secret = "tg-free-of-the-test"
[[clients.free.keys]]
secret = "tg-viewer-of-the-test"
role = "viewer"
[[clients.free.keys]]
secret = "tg-expired-of-the-test"
expires = 2020-01-01
[[clients.free.keys]]
secret = "tg-no-routes-of-the-test"
routes = []
[clients.none]
org = "shared"
quota = {{ requests = ["1/day"] }}
[[clients.none.keys]]
secret = "tg-none-of-the-test"
"""


def plant(data_dir: Path, examples: list[Any]) -> None:
    """An object of the org "shared" for each example, as if a provider had made it."""

    async def add() -> None:
        from gateway.records.store import Records

        records = await Records.open(data_dir)
        for example in examples:
            provider = "demo-anthropic" if example.route.dialect == "anthropic" else "demo"
            records.objects.add(example.object_id, "shared", "free", provider, "file")
        await records.ledger.flush()
        await records.aclose()

    asyncio.run(add())


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory, start_module: Any, demo_process: Any, examples: Any) -> Any:
    folder = tmp_path_factory.mktemp("routes")
    plant(folder / "data", examples)
    server = start_module(folder, CONFIG.format(origin=demo_process.origin))
    # Spends the one request of the day.
    status, _, _ = server.request("POST", "/workers/echo/x", {}, key="tg-none-of-the-test")
    assert status == 200
    return server


def send(server: Any, example: Any, key: str | None) -> tuple[int, dict[str, str], Any]:
    status, headers, body = server.request(example.method, example.path, example.body, key=key, **example.headers)
    return status, headers, json.loads(body) if body and b"json" in headers["content-type"].encode() else body


@pytest.mark.parametrize("key", [None, "tg-unknown", "tg-expired-of-the-test"])
def test_strangers_get_one_answer(bounded: Any, example: Any, key: str | None) -> None:
    status, _, body = send(bounded, example, key)
    assert status == 401
    if example.method == "HEAD":
        return
    error = body["error"]
    if example.route.dialect == "openai":
        assert error["code"] == "invalid_api_key"
    elif example.route.dialect == "anthropic":
        assert error["type"] == "authentication_error"
    else:
        assert body["code"] == "invalid_api_key"


def test_viewers_and_foreign_scopes_are_refused(bounded: Any, example: Any) -> None:
    for key in ("tg-viewer-of-the-test", "tg-no-routes-of-the-test"):
        assert send(bounded, example, key)[0] == 403, key


def test_quota_refuses(bounded: Any, example: Any) -> None:
    status, headers, body = send(bounded, example, "tg-none-of-the-test")
    assert status == 429, body
    assert int(headers["retry-after"]) >= 1
    if example.method == "HEAD":
        return
    if example.route.dialect == "anthropic":
        assert body["error"]["type"] == "rate_limit_error"
        assert headers["anthropic-ratelimit-requests-remaining"] == "0"
    elif example.route.dialect == "openai":
        assert body["error"]["code"] == "rate_limit_exceeded"
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-ratelimit-limit-requests"] == "1"
        assert headers["x-ratelimit-reset-requests"]
    else:
        assert body["code"] == "rate_limit_exceeded"


def test_served_calls_are_recorded(bounded: Any, example: Any) -> None:
    """Whatever the provider answers, the call has its row, its id and its rate headers."""
    _, headers, body = send(bounded, example, "tg-free-of-the-test")
    assert headers["x-request-id"]
    calls = {call["id"]: call for call in bounded.calls()}
    call = calls[headers["x-request-id"]]
    assert call["route"] == example.route.name
    assert call["client"] == "free"
    assert call["outcome"] in ("served", "failed", "answered"), (call, body)


def test_no_route_is_missing() -> None:
    """A new path must be put into the table, with its plane: the app asks nothing else."""
    from gateway.app import PAGES, is_control
    from gateway.control.http import old, pools, providers, queue

    listed = {route.template.encode() for route in TABLE if route.plane != "data"}
    control = {path for path in listed if is_control(path)}
    assert listed - control == PAGES
    assert not any(is_control(route.template.encode()) for route in TABLE if route.plane == "data")
    sight: Any = None
    served = [route for subject in (pools, queue, providers, old) for route in subject.routes(sight)]
    assert {route.path.replace("{request_id}", "{id}").encode() for route in served} == control
    assert {route.plane for route in TABLE} <= {"data", "public", "control"}
