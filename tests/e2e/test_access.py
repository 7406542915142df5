"""Who may do what: keys that come and go while it runs, scopes, the wall between orgs, secrets that stay put."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import OpenAI

CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "SECRET-PROMPT-WORDS"}]}
CONFIG = """
[providers.demo]
kind = "openai"
base_url = "{origin}/v1"
api_key = "sk-provider-secret-0001"
[models.demo-small]
targets = ["demo/demo-small"]
aliases = ["smart"]
[models.demo-large]
targets = ["demo/demo-large"]
[workers.echo]
base_url = "{origin}/worker"
[workers.hidden]
base_url = "{origin}/worker"
[clients.narrow]
models = ["demo-small"]
workers = ["echo"]
[[clients.narrow.keys]]
secret = "tg-narrow-of-the-test"
[[clients.narrow.keys]]
secret = "tg-embeddings-only"
routes = ["embeddings"]
[clients.rival]
[[clients.rival.keys]]
secret = "tg-rival-of-the-test"
[clients.friend]
org = "rival"
[[clients.friend.keys]]
secret = "tg-friend-of-the-test"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, start_module: Any, demo_process: Any) -> Any:
    return start_module(tmp_path_factory.mktemp("access"), CONFIG.format(origin=demo_process.origin))


def status_of(server: Any, key: str, **more: Any) -> int:
    return int(server.request("POST", "/v1/chat/completions", {**CHAT, **more}, key=key)[0])


def test_keys_live_and_die_while_it_runs(server: Any) -> None:
    server.tidegate("clients", "create", "acme", "--json")
    made = server.tidegate("keys", "create", "acme", "--json")
    secret, key_id = made["secret"], made["id"]
    assert status_of(server, secret) == 200
    assert secret not in server.command("keys", "list", "--json").stdout
    rotated = server.tidegate("keys", "rotate", key_id, "--json")
    assert status_of(server, secret) == 401
    assert status_of(server, rotated["secret"]) == 200
    server.tidegate("keys", "revoke", rotated["id"], "--json")
    assert status_of(server, rotated["secret"]) == 401
    assert {"acme"} <= {client["id"] for client in server.tidegate("clients", "list", "--json")}


def test_secrets_are_kept_as_hashes_only(server: Any) -> None:
    for path in (server.folder / "data").iterdir():
        if path.is_file():
            data = path.read_bytes()
            assert b"tg-test-client-key" not in data, path
            assert b"tg-test-admin-key" not in data, path
    pepper = server.folder / "data" / "pepper"
    assert pepper.stat().st_mode & 0o777 == 0o600


def test_both_header_forms_and_disagreement(server: Any) -> None:
    for headers in (
        {"authorization": "Bearer tg-narrow-of-the-test"},
        {"x_api_key": "tg-narrow-of-the-test"},
        {"authorization": "bearer tg-narrow-of-the-test"},
    ):
        assert server.request("POST", "/v1/chat/completions", CHAT, key=None, **headers)[0] == 200
    status, _, body = server.request(
        "POST", "/v1/chat/completions", CHAT, key="tg-narrow-of-the-test", x_api_key="tg-rival-of-the-test"
    )
    assert status == 401
    assert "different" in json.loads(body)["error"]["message"]


def test_model_scopes(server: Any) -> None:
    assert status_of(server, "tg-narrow-of-the-test", model="smart") == 200
    status, _, body = server.request(
        "POST", "/v1/chat/completions", {**CHAT, "model": "demo-large"}, key="tg-narrow-of-the-test"
    )
    assert status == 403
    assert json.loads(body)["error"]["code"] == "model_not_allowed"
    listed = json.loads(server.request("GET", "/v1/models", key="tg-narrow-of-the-test")[2])
    assert {model["id"] for model in listed["data"]} == {"demo-small", "smart"}
    assert server.request("GET", "/v1/models/demo-large", key="tg-narrow-of-the-test")[0] == 404


def test_a_batch_of_unread_models_needs_a_key_for_all(server: Any) -> None:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {**CHAT, "model": "demo-large"}}
    for key, wanted in (("tg-narrow-of-the-test", 403), ("tg-rival-of-the-test", 200)):
        with OpenAI(base_url=f"{server.address}/v1", api_key=key, max_retries=0) as sdk:
            file = sdk.files.create(file=("b.jsonl", json.dumps(line).encode()), purpose="batch")
        asked = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        status, _, page = server.request("POST", "/v1/batches", asked, key=key)
        assert status == wanted
        if wanted == 403:
            assert json.loads(page)["error"]["code"] == "model_not_allowed"


def test_route_and_worker_scopes(server: Any) -> None:
    assert status_of(server, "tg-embeddings-only") == 403
    body = {"model": "demo-small", "input": "x"}
    assert server.request("POST", "/v1/embeddings", body, key="tg-embeddings-only")[0] == 200
    assert server.request("GET", "/workers/echo/x", key="tg-narrow-of-the-test")[0] == 200
    assert server.request("GET", "/workers/hidden/x", key="tg-narrow-of-the-test")[0] == 403
    assert server.request("GET", "/workers/absent/x", key="tg-narrow-of-the-test")[0] == 404


def test_the_wall_between_orgs(server: Any) -> None:
    """Stored objects are seen by the org that made them, and by nobody else."""
    made = json.loads(
        server.request("POST", "/v1/responses", {"model": "demo-small", "input": "x"}, key="tg-rival-of-the-test")[2]
    )
    path = f"/v1/responses/{made['id']}"
    assert server.request("GET", path, key="tg-rival-of-the-test")[0] == 200
    assert server.request("GET", path, key="tg-friend-of-the-test")[0] == 200, "the same org"
    assert server.request("GET", path, key="tg-narrow-of-the-test")[0] == 404
    assert server.request("DELETE", path, key="tg-narrow-of-the-test")[0] == 404
    follow = {"model": "demo-small", "input": "y", "previous_response_id": made["id"]}
    assert server.request("POST", "/v1/responses", follow, key="tg-narrow-of-the-test")[0] == 404
    assert server.request("POST", "/v1/responses", follow, key="tg-friend-of-the-test")[0] == 200
    streamed = server.request(
        "POST", "/v1/responses", {"model": "demo-small", "input": "x", "stream": True}, key="tg-rival-of-the-test"
    )
    stream_id = json.loads(streamed[2].split(b"data: ")[1].split(b"\n")[0])["response"]["id"]
    assert server.request("GET", f"/v1/responses/{stream_id}", key="tg-rival-of-the-test")[0] == 200
    assert server.request("GET", f"/v1/responses/{stream_id}", key="tg-narrow-of-the-test")[0] == 404


def upload(server: Any, key: str) -> str:
    body = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    )
    answer = server.request("POST", "/v1/files", body, key=key, content_type="multipart/form-data; boundary=b")
    return str(json.loads(answer[2])["id"])


def test_lists_are_filtered(server: Any) -> None:
    mine, theirs = upload(server, "tg-rival-of-the-test"), upload(server, "tg-narrow-of-the-test")
    listed = {
        row["id"] for row in json.loads(server.request("GET", "/v1/files", key="tg-rival-of-the-test")[2])["data"]
    }
    assert mine in listed
    assert theirs not in listed
    assert server.request("GET", f"/v1/files/{theirs}/content", key="tg-rival-of-the-test")[0] == 404
    assert server.request("PUT", f"/v1/files/{theirs}", {}, key="tg-rival-of-the-test")[0] == 405, (
        "no way around the routes"
    )
    batch = {"input_file_id": theirs, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert server.request("POST", "/v1/batches", batch, key="tg-rival-of-the-test")[0] == 404


def test_secrets_stay_on_their_side(server: Any, demo_process: Any) -> None:
    """The client's key never goes up, the provider's never comes down, neither is ever logged."""
    _, headers, body = server.request(
        "GET", "/workers/echo/x", key="tg-narrow-of-the-test", cookie="session=1", x_client_id="root"
    )
    seen = {name.lower(): value for name, value in json.loads(body)["headers"]}
    assert "authorization" not in seen
    assert "x-api-key" not in seen
    assert "cookie" not in seen
    assert seen.get("x-client-id") != "root"
    status, headers, body = server.request("POST", "/v1/chat/completions", CHAT, key="tg-narrow-of-the-test")
    assert status == 200
    assert "sk-provider" not in str(headers) + body.decode()
    everything = server.output
    for secret in ("tg-narrow-of-the-test", "sk-provider", "SECRET-PROMPT-WORDS", "tg-test-client-key"):
        assert secret not in everything, f"{secret} was logged"


def test_config_clients_are_read_only(server: Any) -> None:
    done = server.command("clients", "create", "narrow")
    assert done.returncode == 1
    assert "narrow" in done.stderr
