"""What admission learns of a request: worst cases, stored objects, and a clear word where a type is wrong."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.call import Facts
from gateway.errors import BadRequest

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
TURN = [{"role": "user", "content": "Hello!"}]


FILE = {"file_id": "file-1"}


def said(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def sourced(kind: str, **source: Any) -> dict[str, Any]:
    return {"messages": said({"type": kind, "source": source})}


def facts(bench: Any, path: str, body: Any, kind: str = "openai") -> Facts:
    return bench.call(path, orjson.dumps(body), kind=kind).facts


def test_chat(bench: Any) -> None:
    body = {"model": "gpt-4o", "messages": TURN, "stream": True, "n": 3, "max_tokens": 9, "max_completion_tokens": 12}
    found = facts(bench, CHAT, body | {"stream_options": {"include_usage": True}})
    assert (found.model, found.stream, found.n, found.max_tokens, found.asked_usage) == ("gpt-4o", True, 3, 12, True)
    assert found.prompt_bytes == len(orjson.dumps(body | {"stream_options": {"include_usage": True}}))
    assert not found.unbounded
    assert found.object_ids == ()


@pytest.mark.parametrize("value", [0, None])
def test_zero_is_a_limit_and_null_is_none(bench: Any, value: int | None) -> None:
    assert facts(bench, CHAT, {"model": "m", "messages": TURN, "max_tokens": value}).max_tokens == value
    assert (
        facts(bench, MESSAGES, {"model": "m", "messages": TURN, "max_tokens": value}, "anthropic").max_tokens == value
    )
    assert facts(bench, RESPONSES, {"model": "m", "input": "x", "max_output_tokens": value}).max_tokens == value


@pytest.mark.parametrize(
    ("prompt", "more", "n"),
    [
        ("x", {}, 1),
        ("x", {"n": 2, "best_of": 5}, 5),
        ("x", {"best_of": 0}, 1),
        (["x", "y", "z"], {"n": 2}, 6),
        ([1, 2, 3], {"n": 2}, 2),
        ([[1, 2], [3]], {}, 2),
        ([], {}, 1),
    ],
)
def test_completions_count_every_output(bench: Any, prompt: Any, more: dict[str, int], n: int) -> None:
    assert facts(bench, "/v1/completions", {"model": "m", "prompt": prompt, **more}).n == n


@pytest.mark.parametrize(
    ("path", "kind", "more"),
    [
        (CHAT, "openai", {"modalities": ["text", "audio"]}),
        (CHAT, "openai", {"web_search_options": {}}),
        (CHAT, "openai", {"messages": said({"type": "input_audio", "input_audio": {"data": "AA"}})}),
        (CHAT, "openai", {"messages": said({"type": "image_url", "image_url": {"url": "https://a/b"}})}),
        (CHAT, "openai", {"messages": said({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}})}),
        (RESPONSES, "openai", {"previous_response_id": "resp_1"}),
        (RESPONSES, "openai", {"conversation": "conv_1"}),
        (RESPONSES, "openai", {"background": True}),
        (RESPONSES, "openai", {"prompt": {"id": "pmpt_1"}}),
        (RESPONSES, "openai", {"tools": [{"type": "function", "name": "f"}, {"type": "web_search"}]}),
        (RESPONSES, "openai", {"tools": [{"type": "mcp", "server_url": "https://a"}]}),
        (RESPONSES, "openai", {"input": said({"type": "input_file", "file_url": "https://a/b"})}),
        (MESSAGES, "anthropic", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        (MESSAGES, "anthropic", {"mcp_servers": [{"type": "url", "url": "https://a", "name": "a"}]}),
        (MESSAGES, "anthropic", sourced("image", type="url", url="https://a")),
        (MESSAGES, "anthropic", sourced("document", type="base64", media_type="application/pdf", data="AA")),
    ],
)
def test_work_without_a_bound_is_known(bench: Any, path: str, kind: str, more: dict[str, Any]) -> None:
    body = {"model": "m", "messages": TURN, "input": "x", "max_tokens": 5}
    assert facts(bench, path, body | more, kind).unbounded


@pytest.mark.parametrize(
    ("path", "kind", "more"),
    [
        (CHAT, "openai", {"modalities": ["text"], "tools": [{"type": "function", "function": {}}, {"type": "custom"}]}),
        (RESPONSES, "openai", {"tools": [{"type": "computer_use_preview"}, {"type": "local_shell"}]}),
        (RESPONSES, "openai", {"tools": [{"type": "apply_patch"}, {"type": "namespace", "tools": []}]}),
        (MESSAGES, "anthropic", {"tools": [{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"}]}),
        (MESSAGES, "anthropic", {"tools": [{"type": "bash_20250124"}, {"type": "memory_20250818"}], "mcp_servers": []}),
        (MESSAGES, "anthropic", {"tools": [{"type": "text_editor_20250728"}]}),
    ],
)
def test_tools_of_the_client_are_bounded(bench: Any, path: str, kind: str, more: dict[str, Any]) -> None:
    assert not facts(
        bench, path, {"model": "m", "messages": TURN, "input": "x", "max_tokens": 5} | more, kind
    ).unbounded


def test_an_inline_image_counts_more_than_its_few_bytes(bench: Any) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    body = {"model": "m", "messages": [{"role": "user", "content": [picture, picture]}]}
    found = facts(bench, CHAT, body)
    assert not found.unbounded
    assert found.prompt_bytes == len(orjson.dumps(body)) + 2 * 4096
    source = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [source]}]}
    found = facts(bench, MESSAGES, body, "anthropic")
    assert (found.unbounded, found.prompt_bytes) == (False, len(orjson.dumps(body)) + 4096)


THREAD = {
    "tool_resources": {"file_search": {"vector_store_ids": ["vs_1"]}},
    "messages": [{"role": "user", "content": "x", "attachments": [FILE]}],
}
NAMED: list[tuple[str, str, dict[str, Any], tuple[str, ...]]] = [
    (RESPONSES, "openai", {"previous_response_id": "resp_1"}, ("resp_1",)),
    (RESPONSES, "openai", {"conversation": {"id": "conv_1"}}, ("conv_1",)),
    (RESPONSES, "openai", {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1", "vs_2"]}]}, ("vs_1", "vs_2")),
    (RESPONSES, "openai", {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, ("cntr_1",)),
    (RESPONSES, "openai", {"tools": [{"container": {"type": "auto", "file_ids": ["file-1"]}}]}, ("file-1",)),
    (RESPONSES, "openai", {"input": said({"type": "input_file", **FILE}, {"file_id": "file-2"})}, ("file-1", "file-2")),
    (CHAT, "openai", {"messages": said({"type": "file", "file": FILE})}, ("file-1",)),
    (MESSAGES, "anthropic", sourced("document", type="file", file_id="file_1"), ("file_1",)),
    (MESSAGES, "anthropic", {"messages": said({"type": "container_upload", **FILE})}, ("file-1",)),
    (MESSAGES, "anthropic", {"container": "container_1"}, ("container_1",)),
    (MESSAGES, "anthropic", {"container": {"id": "container_1", "skills": []}}, ("container_1",)),
    ("/v1/batches", "openai", {"input_file_id": "file-1", "endpoint": "/v1/responses"}, ("file-1",)),
    ("/v1/fine_tuning/jobs", "openai", {"training_file": "a", "validation_file": "b"}, ("a", "b")),
    ("/v1/threads/runs", "openai", {"assistant_id": "asst_1", "thread": THREAD}, ("asst_1", "file-1", "vs_1")),
    ("/v1/images/edits", "openai", {"images": [FILE], "mask": {"file_id": "file-2"}}, ("file-1", "file-2")),
]


@pytest.mark.parametrize(("path", "kind", "more", "ids"), NAMED)
def test_stored_objects_are_found(bench: Any, path: str, kind: str, more: dict[str, Any], ids: tuple[str, ...]) -> None:
    found = facts(bench, path, {"model": "m", "messages": TURN, "input": "x", "max_tokens": 5} | more, kind)
    assert sorted(found.object_ids) == sorted(ids)


def test_an_escaped_key_hides_no_object(bench: Any) -> None:
    raw = b'{"model":"m","input":"x","previous_response_\\u0069d":"resp_1"}'
    assert bench.call(RESPONSES, raw).facts.object_ids == ("resp_1",)


def test_what_the_caller_keeps_for_himself_names_no_object(bench: Any) -> None:
    schema = {"type": "object", "properties": {"file_id": {"type": "string", "default": {"file_id": "x"}}}}
    body = {
        "model": "m",
        "metadata": {"file_id": "mine"},
        "tools": [{"type": "function", "name": "f", "parameters": schema}],
        "input": [
            {
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a", "annotations": [{"file_id": "cfile_1"}]}],
            },
            {"type": "function_call", "name": "f", "call_id": "call_1", "arguments": '{"file_id":"x"}'},
        ],
    }
    assert facts(bench, RESPONSES, body).object_ids == ()
    use = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"file_id": "mine"}}
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "assistant", "content": [use]}]}
    assert facts(bench, MESSAGES, body, "anthropic").object_ids == ()


@pytest.mark.parametrize(
    ("path", "kind", "body", "param"),
    [
        (CHAT, "openai", {"model": 4}, "model"),
        (CHAT, "openai", {"model": "m", "stream": "yes"}, "stream"),
        (CHAT, "openai", {"model": "m", "max_tokens": -1}, "max_tokens"),
        (CHAT, "openai", {"model": "m", "max_tokens": "many"}, "max_tokens"),
        (CHAT, "openai", {"model": "m", "max_completion_tokens": 1.5}, "max_completion_tokens"),
        (CHAT, "openai", {"model": "m", "max_tokens": 2**31}, "max_tokens"),
        (CHAT, "openai", {"model": "m", "n": 0}, "n"),
        (CHAT, "openai", {"model": "m", "n": True}, "n"),
        (CHAT, "openai", {"model": "m", "stream_options": [1]}, "stream_options"),
        (CHAT, "openai", {"model": "m", "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        (CHAT, "openai", {"model": "m", "tools": {}}, "tools"),
        (RESPONSES, "openai", {"model": "m", "max_output_tokens": []}, "max_output_tokens"),
        (RESPONSES, "openai", {"model": "m", "previous_response_id": 7}, "previous_response_id"),
        (MESSAGES, "anthropic", {"model": "m", "max_tokens": "9"}, "max_tokens"),
        ("/v1/images/generations", "openai", {"model": "m", "n": "2"}, "n"),
        ("/v1/audio/speech", "openai", {"model": "m", "input": ["x"]}, "input"),
        ("/v1/embeddings", "openai", {"model": ["m"]}, "model"),
    ],
)
def test_a_wrong_type_is_named(bench: Any, path: str, kind: str, body: Any, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        facts(bench, path, body, kind)
    assert refused.value.param == param
    assert f"'{param}'" in refused.value.message
    assert "`" not in refused.value.message


@pytest.mark.parametrize("body", [[], "text", 7, None, True])
def test_a_body_that_is_no_object_is_refused(bench: Any, body: Any) -> None:
    for path, kind in ((CHAT, "openai"), (RESPONSES, "openai"), (MESSAGES, "anthropic"), ("/v1/embeddings", "openai")):
        if body is None:
            continue
        with pytest.raises(BadRequest, match="must be a JSON object"):
            facts(bench, path, body, kind)


def test_units_known_before_sending(bench: Any) -> None:
    found = facts(bench, "/v1/images/generations", {"model": "dall-e-3", "n": 2, "size": "1792x1024", "quality": "hd"})
    assert (found.units, found.n, found.max_tokens) == ({"images": 2, "image:1792x1024:hd": 2}, 2, 0)
    assert facts(bench, "/v1/images/generations", {"model": "gpt-image-1"}).max_tokens == 6240
    found = facts(bench, "/v1/audio/speech", {"model": "tts-1", "input": "Ça va?"})
    assert (found.units, found.unbounded, found.max_tokens) == ({"characters": 6}, False, 0)
    assert facts(bench, "/v1/audio/speech", {"model": "gpt-4o-mini-tts", "input": "x"}).unbounded
    found = facts(bench, "/v1/embeddings", {"model": "m", "input": ["a", "b"]})
    assert (found.units, found.max_tokens) == ({"inputs": 2}, 0)
    assert facts(bench, "/v1/embeddings", {"model": "m", "input": [1, 2, 3]}).units == {"inputs": 1}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/moderations", "openai"),
        ("/v1/responses/input_tokens", "openai"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/v1/batches", "openai"),
        ("/v1/messages/batches", "anthropic"),
        ("/workers/x/y", "http"),
    ],
)
def test_what_is_not_billed_by_tokens_reserves_none(bench: Any, path: str, kind: str) -> None:
    found = facts(bench, path, {"model": "m", "input": "x", "messages": TURN}, kind)
    assert (found.prompt_bytes, found.max_tokens, found.unbounded) == (0, 0, False)


def test_a_model_on_an_unknown_path_is_a_call_like_others(bench: Any) -> None:
    """Its worst case is reserved, for it may state a usage; models further inside are known, too."""
    body = {"model": "m", "max_tokens": 7, "graders": [{"model": "n"}], "metadata": {"model": "o"}}
    for kind, path in (("openai", "/v1/complete"), ("anthropic", "/v1/messages/later")):
        found = facts(bench, path, body, kind)
        assert (found.model, found.max_tokens, found.more_models) == ("m", 7, ("n",))
        assert found.prompt_bytes == len(orjson.dumps(body))
    assert facts(bench, "/v1/vector_stores", {"name": "x"}).max_tokens == 0


def test_a_request_without_a_body(bench: Any) -> None:
    for path, kind, method in (("/v1/files", "openai", "GET"), ("/v1/messages/batches/b", "anthropic", "GET")):
        call = bench.call(path, method=method, kind=kind)
        found = bench.kinds[kind].facts(call.route, None, b"")
        assert (found.prompt_bytes, found.max_tokens, found.unbounded) == (0, 0, False)
    call = bench.call("/v1/audio/transcriptions")
    assert bench.kinds["openai"].facts(call.route, None, b"").unbounded


def test_other_paths_may_send_anything(bench: Any) -> None:
    assert facts(bench, "/v1/vector_stores", [1, 2]).model is None
    assert facts(bench, "/v1/vector_stores", {"model": 7, "stream": "x"}).model is None


def test_a_long_flat_list_is_walked_quickly_and_a_deep_one_too(bench: Any) -> None:
    body = {"model": "m", "input": [{"role": "user", "content": [1] * 5000 + [{"file_id": "file-1"}]}]}
    assert facts(bench, RESPONSES, body).object_ids == ("file-1",)
