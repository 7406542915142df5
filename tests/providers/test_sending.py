"""What is sent: the original bytes wherever nothing must change, to the right path, with the provider's key."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

CHAT = "/v1/chat/completions"


def sent(bench: Any, path: str, raw: bytes, kind: str = "openai", **target: Any) -> tuple[bytes, bytes]:
    call = bench.call(path, raw, kind=kind)
    return raw, bench.kinds[kind].body_for(call, bench.target(bench.kinds[kind], **target))


@pytest.mark.parametrize(
    ("path", "kind", "raw"),
    [
        (CHAT, "openai", b'{ "messages" : [], "model":"m", "unknown_field": 1.50 }'),
        (CHAT, "openai", b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'),
        (CHAT, "openai", b'{"model":"m","stream":false,"messages":[]}'),
        ("/v1/responses", "openai", b'{"model":"m","stream":true,"input":"x"}'),
        ("/v1/embeddings", "openai", b'{"model":"m","input":"x"}'),
        ("/v1/messages", "anthropic", b'{"model":"m","max_tokens":1,"stream":true,"messages":[]}'),
        ("/v1/batches", "openai", b'{"input_file_id":"file-1","model":"another"}'),
        ("/v1/vector_stores", "openai", b"[1]"),
        ("/workers/x/y", "http", b'{"model":"another"}'),
    ],
)
def test_nothing_changes_where_nothing_must(bench: Any, path: str, kind: str, raw: bytes) -> None:
    before, after = sent(bench, path, raw, kind)
    assert after is before


def test_the_model_is_replaced_in_place(bench: Any) -> None:
    raw = b'{"messages":[{"role":"user","content":"\\"model\\": \\"smart\\""}], "model" : "smart" , "seed":1.0e3}'
    _, body = sent(bench, CHAT, raw, model="smart", upstream_model="gpt-4o-2024-08-06")
    assert body == raw.replace(b'"model" : "smart"', b'"model" : "gpt-4o-2024-08-06"')
    _, body = sent(
        bench, "/v1/messages", b'{"max_tokens":1,"mod\\u0065l":"smart","messages":[]}', "anthropic", model="x"
    )
    assert body == b'{"max_tokens":1,"mod\\u0065l":"x","messages":[]}'


def test_a_model_that_was_assumed_is_not_sent_unless_it_differs(bench: Any) -> None:
    call = bench.call("/v1/moderations", b'{"input":"x"}')
    call.facts.model = "omni-moderation-latest"
    kind = bench.kinds["openai"]
    assert kind.body_for(call, bench.target(kind, "omni-moderation-latest")) is call.body
    body = kind.body_for(call, bench.target(kind, "omni-moderation-latest", "omni-2"))
    assert body == b'{"model":"omni-2","input":"x"}'


@pytest.mark.parametrize(
    ("options", "want"),
    [
        (b"", b'{"stream_options":{"include_usage":true},"model":"m","stream":true,"messages":[]}'),
        (b',"stream_options":null', b',"stream_options":{"include_usage":true}'),
        (b',"stream_options":{}', b',"stream_options":{"include_usage":true}'),
        (
            b',"stream_options":{"include_obfuscation":false}',
            b',"stream_options":{"include_obfuscation":false,"include_usage":true}',
        ),
        (b',"stream_options":{"include_usage":false}', b',"stream_options":{"include_usage":true}'),
    ],
)
def test_streams_are_asked_for_their_usage(bench: Any, options: bytes, want: bytes) -> None:
    raw = b'{"model":"m","stream":true,"messages":[]%b}' % options
    _, body = sent(bench, CHAT, raw)
    assert body == (raw.replace(options, want) if options else want)
    _, body = sent(bench, "/v1/completions", raw)
    assert orjson.loads(body)["stream_options"]["include_usage"] is True


@pytest.mark.parametrize(
    ("path", "kind", "cap"),
    [
        (CHAT, "openai", "max_completion_tokens"),
        ("/v1/completions", "openai", "max_tokens"),
        ("/v1/responses", "openai", "max_output_tokens"),
        ("/v1/messages", "anthropic", "max_tokens"),
    ],
)
def test_an_output_cap_is_put_in_where_none_was_given(bench: Any, path: str, kind: str, cap: str) -> None:
    capped: dict[str, Any] = {"enforce_output_cap": True, "default_output_tokens": 77}
    for raw in (b'{"model":"m","input":"x"}', b'{"model":"m","%b":null}' % cap.encode()):
        assert orjson.loads(sent(bench, path, raw, kind, **capped)[1])[cap] == 77
    raw = b'{"model":"m","%b":0}' % cap.encode()
    assert sent(bench, path, raw, kind, **capped)[1] == raw
    assert sent(bench, path, b'{"model":"m"}', kind)[1] == b'{"model":"m"}'


def test_every_change_at_once(bench: Any) -> None:
    raw = b'{"model":"a","messages":[],"stream":true}'
    _, body = sent(bench, CHAT, raw, model="b", enforce_output_cap=True, default_output_tokens=5)
    assert body == (
        b'{"max_completion_tokens":5,"stream_options":{"include_usage":true},"model":"b","messages":[],"stream":true}'
    )


@pytest.mark.parametrize(
    ("kind", "path", "base", "query", "fixed", "want"),
    [
        ("openai", CHAT, b"/v1", b"", b"", b"/v1/chat/completions"),
        ("openai", CHAT, b"", b"", b"", b"/chat/completions"),
        (
            "openai",
            CHAT,
            b"/openai/v1",
            b"a=1&b=%20",
            b"api-version=x",
            b"/openai/v1/chat/completions?a=1&b=%20&api-version=x",
        ),
        ("openai", CHAT, b"/v1beta/openai", b"", b"k=v", b"/v1beta/openai/chat/completions?k=v"),
        ("openai", "/v1/v1beta", b"/v1", b"", b"", b"/v1/v1beta"),
        ("anthropic", "/v1/messages", b"", b"beta=true", b"", b"/v1/messages?beta=true"),
        ("anthropic", "/v1/messages", b"/proxy", b"", b"", b"/proxy/v1/messages"),
        ("http", "/workers/granulator/api/execute", b"", b"x=1", b"", b"/api/execute?x=1"),
        ("http", "/workers/granulator/a/b%2Fc/", b"/base", b"", b"", b"/base/a/b%2Fc/"),
        ("http", "/workers/granulator", b"", b"", b"", b"/"),
        ("http", "/workers/granulator", b"/base", b"", b"", b"/base"),
        ("http", "/workers/workers/workers/x", b"", b"", b"", b"/workers/x"),
    ],
)
def test_paths(bench: Any, kind: str, path: str, base: bytes, query: bytes, fixed: bytes, want: bytes) -> None:
    provider = bench.provider(bench.kinds[kind], base_path=base, query=fixed)
    call = bench.call(path, b"{}" if kind != "http" else None, kind=kind, query=query)
    assert bench.kinds[kind].path_for(provider, call, None) == want


@pytest.mark.parametrize(
    ("kind", "more", "want"),
    [
        ("openai", {}, [(b"authorization", b"Bearer sk-1")]),
        ("openai", {"auth_header": b"api-key"}, [(b"api-key", b"sk-1")]),
        ("openai", {"api_key": ""}, []),
        ("openai", {"headers": [(b"x-team", b"a")]}, [(b"authorization", b"Bearer sk-1"), (b"x-team", b"a")]),
        ("anthropic", {}, [(b"x-api-key", b"sk-1")]),
        ("anthropic", {"auth_header": b"authorization"}, [(b"authorization", b"Bearer sk-1")]),
        ("http", {}, [(b"authorization", b"Bearer sk-1")]),
    ],
)
def test_credentials(bench: Any, kind: str, more: dict[str, Any], want: list[tuple[bytes, bytes]]) -> None:
    provider = bench.provider(bench.kinds[kind], **{"api_key": "sk-1", **more})
    assert bench.kinds[kind].credentials(provider) == want


def test_anthropic_hears_a_version_though_the_client_names_none(bench: Any) -> None:
    call = bench.call("/v1/messages", b"{}", kind="anthropic")
    assert bench.kinds["anthropic"].extra_headers(call) == [(b"anthropic-version", b"2023-06-01")]
    call.headers[b"anthropic-version"] = b"2024-01-01"
    assert bench.kinds["anthropic"].extra_headers(call) == []
    assert bench.kinds["openai"].extra_headers(call) == []
