"""What one org's calls made at a provider is out of every other org's reach, wherever and however it is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from openai import OpenAI

CONFIG = """
[providers.up]
kind = "openai"
base_url = "{origin}/v1"
[providers.claude]
kind = "anthropic"
base_url = "{origin}"
[models."*"]
targets = ["up/*", "claude/*"]
[clients.a]
[[clients.a.keys]]
secret = "tg-a-of-the-test"
[clients.b]
[[clients.b.keys]]
secret = "tg-b-of-the-test"
"""
FORM = "multipart/form-data; boundary=B"
CHAT = {"id": "c", "object": "chat.completion", "model": "m", "choices": []}
#: Ids of org A, by the path that makes them.
MADE = {
    "/v1/files": "file-A1",
    "/v1/containers": "cntr_a1b2c3d4",
    "/v1/threads": "thread_abcdefghij",
    "/v1/videos": "video_a1b2c3",
    "/v1/vector_stores": "vs_a1b2c3d4",
    "/v1/skills": "skill_a1b2c3d4",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, start_module: Any, scripted: Any) -> Any:
    server = start_module(tmp_path_factory.mktemp("wall"), CONFIG.format(origin=scripted.origin))
    for path, id in MADE.items():
        make(server, scripted, path, id, "tg-a-of-the-test")
    make(server, scripted, "/v1/responses", "resp_a1b2c3d4", "tg-a-of-the-test")
    make(server, scripted, "/v1/containers", "cntr_b1b1b1b1", "tg-b-of-the-test")
    return server


def make(server: Any, scripted: Any, path: str, id: str, key: str, **headers: str) -> None:
    scripted.script = lambda asked: {"id": id, "object": "thing", "usage": {"input_tokens": 1, "output_tokens": 1}}
    assert server.request("POST", path, {"model": "m", "input": "x"}, key=key, **headers)[0] == 200


@pytest.fixture
def upstream(scripted: Any) -> Any:
    scripted.asked.clear()
    scripted.script = lambda asked: {**CHAT, "input_tokens": 1, "data": []}
    return scripted


USER = {"role": "user"}
NAMED: list[tuple[str, Any]] = [
    ("/v1/messages", {"messages": [{**USER, "content": [{"type": "document", "source": {"file_id": "file-A1"}}]}]}),
    ("/v1/messages", {"messages": [], "container": "cntr_a1b2c3d4"}),
    ("/v1/messages", {"messages": [], "container": {"skills": [{"skill_id": "skill_a1b2c3d4"}]}}),
    ("/v1/messages/count_tokens", {"messages": [{**USER, "content": [{"source": {"file_id": "file-A1"}}]}]}),
    ("/v1/images/edits", {"images": [{"file_id": "file-A1"}], "prompt": "x"}),
    ("/v1/responses/input_tokens", {"input": "x", "previous_response_id": "resp_a1b2c3d4"}),
    ("/v1/chat/completions", {"messages": [], "anything": {"at": ["file-A1"]}}),
    ("/v1/containers/cntr_b1b1b1b1/files", {"file_id": "file-A1"}),
    ("/v1/evals", {"data_source": {"type": "jsonl", "source": {"type": "file_id", "id": "file-A1"}}}),
    ("/v1/videos/edits", {"video": {"id": "video_a1b2c3"}}),
    ("/v1/threads/thread_abcdefghij", {"metadata": {}}),
    ("/v1/threads/runs", {"thread": "thread_abcdefghij"}),
    ("/v1/vector_stores/vs_a1b2c3d4/search", {"query": "x"}),
    ("/v1/videos/video_a1b2c3/remix", {"prompt": "x"}),
    ("/v1/batches", {"input_file_id": "file-A1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}),
]


def status_of(server: Any, path: str, body: Any, key: str, **headers: str) -> int:
    if path.startswith("/v1/messages"):
        headers["anthropic_version"] = "2023-06-01"
    return int(server.request("POST", path, body, key=key, **headers)[0])


@pytest.mark.parametrize(("path", "body"), NAMED, ids=lambda value: str(value)[:60])
def test_an_id_is_the_makers_under_whatever_key(server: Any, upstream: Any, path: str, body: Any) -> None:
    if not path.startswith(("/v1/threads", "/v1/containers", "/v1/batches", "/v1/v")):
        body = {"model": "m", **body}
    spelt = json.dumps(body).replace("file-A1", "\\u0066ile-A1").encode()
    assert status_of(server, path, body, "tg-b-of-the-test") == 404
    assert status_of(server, path, spelt, "tg-b-of-the-test") == 404
    assert not upstream.asked
    if "cntr_b1b1b1b1" not in path:
        elsewhere = path.startswith("/v1/messages")  # than at the provider that holds it
        assert status_of(server, path, body, "tg-a-of-the-test") == (
            400 if elsewhere and "skill" not in str(body) else 200
        )


def test_an_id_in_a_query_or_a_form_is_the_makers(server: Any, upstream: Any, form: Callable[..., bytes]) -> None:
    path = "/v1/containers/cntr_b1b1b1b1/files"
    late = [form(("x", b"x" * size, "name"), ("anything", "file-A1")) for size in (10, 200_000)]
    for body in (form(("file_id", "file-A1")), form(("settings", '{"from": "file-A1"}')), *late):
        assert status_of(server, path, body, "tg-b-of-the-test", content_type=FORM) == 404
    assert status_of(server, path, b'{"file_id": "file-A1"}', "tg-b-of-the-test", content_type="") in (404, 415)
    assert server.request("GET", "/v1/responses?after=resp%5Fa1b2c3d4", key="tg-b-of-the-test")[0] in (404, 405)
    assert server.request("GET", "/v1/containers?after=cntr%5Fa1b2c3d4", key="tg-b-of-the-test")[0] == 404
    assert not any(b"file-A1" in asked.body for asked in upstream.asked)


def test_requests_in_a_batchs_file_name_only_ones_own(server: Any, upstream: Any, form: Callable[..., bytes]) -> None:
    line = json.dumps({"body": {"model": "m", "previous_response_id": "resp_a1b2c3d4"}}).encode() + b"\n"
    for filler in (0, 100_000):
        body = form(("purpose", "batch"), ("file", b" " * filler + line, "lines.jsonl"))
        assert status_of(server, "/v1/files", body, "tg-b-of-the-test", content_type=FORM) == 404
    assert not upstream.asked or all(line not in asked.body for asked in upstream.asked)
    make_file = {"id": "file-A2", "object": "file"}
    upstream.script = lambda asked: make_file
    assert status_of(server, "/v1/files", body, "tg-a-of-the-test", content_type=FORM) == 200
    text = form(("purpose", "user_data"), ("file", line, "mine.txt"))
    assert status_of(server, "/v1/files", text, "tg-b-of-the-test", content_type=FORM) == 200, (
        "nobody runs what is in there"
    )


def test_lists_below_an_owned_object_are_whole(server: Any, upstream: Any) -> None:
    rows = [{"id": "msg_made_by_the_provider_1"}, {"object": "event"}]
    upstream.script = lambda asked: {"object": "list", "data": rows, "has_more": False}
    path = "/v1/threads/thread_abcdefghij/messages"
    assert json.loads(server.request("GET", path, key="tg-a-of-the-test")[2])["data"] == rows
    assert server.request("GET", f"{path}/msg_made_by_the_provider_1", key="tg-a-of-the-test")[0] == 200
    assert server.request("GET", path, key="tg-b-of-the-test")[0] == 404


def test_rows_without_an_id_are_nobodys(server: Any, upstream: Any) -> None:
    rows = [{"name": "alloy"}, {"id": "verse"}, {"id": "file-A1"}, {"id": "voice_1234567"}]
    upstream.script = lambda asked: {"data": rows}
    for key, seen in (("tg-b-of-the-test", rows[:2]), ("tg-a-of-the-test", rows[:3])):
        assert json.loads(server.request("GET", "/v1/voices", key=key)[2])["data"] == seen


def paged(ids: list[str], most: int = 100) -> Callable[[Any], Any]:
    """Lists these files as OpenAI does."""

    def script(asked: Any) -> Any:
        limit = min(int((re.search(r"limit=(\d+)", asked.path) or [0, 20])[1]), most)
        after = re.search(r"after=([\w-]+)", asked.path)
        rest = ids[ids.index(after[1]) + 1 :] if after else ids
        rows = [{"id": id, "object": "file"} for id in rest[:limit]]
        ends = {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]} if rows else {"first_id": None, "last_id": None}
        return {"object": "list", "data": rows, "has_more": len(rest) > limit, **ends}

    return script


def test_a_page_is_never_empty_before_the_end(server: Any, scripted: Any) -> None:
    own = ["file-B1", "file-B2", "file-B3"]
    for id in own:
        make(server, scripted, "/v1/files", id, "tg-b-of-the-test")
    others = [f"file-other{number}" for number in range(240)]
    scripted.script = paged([*others[:120], own[0], own[1], *others[120:], own[2]])
    with OpenAI(base_url=f"{server.address}/v1", api_key="tg-b-of-the-test", max_retries=0) as client:
        assert [file.id for file in client.files.list(limit=2)] == own
        first = client.files.list(limit=1)
    assert ([file.id for file in first.data], first.has_more) == (own[:1], True)
    page = json.loads(server.request("GET", "/v1/files?limit=1", key="tg-b-of-the-test")[2])
    assert (page["first_id"], page["last_id"]) == (own[0], own[0])
    scripted.script = paged(others)
    page = json.loads(server.request("GET", "/v1/files?limit=2", key="tg-b-of-the-test")[2])
    assert page == {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}


def test_a_long_list_is_filtered_too(server: Any, scripted: Any) -> None:
    rows = [{"id": f"file-other{number}", "pad": "x" * 200} for number in range(8_000)]
    scripted.script = lambda asked: {"data": [*rows, {"id": "file-A1"}], "has_more": False}
    status, _, body = server.request("GET", "/v1/files", key="tg-a-of-the-test")
    assert (status, [row["id"] for row in json.loads(body)["data"]]) == (200, ["file-A1"])
    scripted.script = lambda asked: (200, "application/json", b"\x1f\x8b not a list")
    assert server.request("GET", "/v1/files", key="tg-a-of-the-test")[0] == 502


def test_files_of_a_listed_batch_are_its_owners(server: Any, scripted: Any) -> None:
    make(server, scripted, "/v1/batches", "batch_b1b2b3b4", "tg-b-of-the-test")
    batch = {"id": "batch_b1b2b3b4", "output_file_id": "file-out1", "error_file_id": "file-err1"}
    scripted.script = lambda asked: {"data": [batch, {"id": "batch_x1x2x3", "output_file_id": "file-out2"}]}
    assert server.request("GET", "/v1/batches", key="tg-b-of-the-test")[0] == 200
    for id, key, status in (
        ("out1", "tg-b-of-the-test", 200),
        ("err1", "tg-b-of-the-test", 200),
        ("out1", "tg-a-of-the-test", 404),
        ("out2", "tg-b-of-the-test", 404),
    ):
        assert server.request("GET", f"/v1/files/file-{id}/content", key=key)[0] == status
