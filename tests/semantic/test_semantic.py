"""The semantic cache over real sockets: what is a hit, what never is, and what a hit says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx2
import pytest

ASKED = "How do I reset my password?"
PUT = "How can I reset my password?"
SAME = [{"type": "text", "text": ASKED}]


def result(reply: Any) -> str:
    assert reply.status_code == 200, reply.text
    return str(reply.headers["x-tidegate-cache"])


async def test_the_same_put_otherwise_is_a_hit_that_says_so(site: Any) -> None:
    first = await site.say(ASKED)
    before = site.demo.stats()["calls"]
    again = await site.say(PUT)
    assert site.demo.stats()["calls"] == before
    assert (result(first), result(again)) == ("miss", "semantic")
    assert again.headers.get_list("x-tidegate-cache") == ["semantic"]
    assert again.content == first.content
    assert 0.875 <= float(again.headers["x-tidegate-similarity"]) < 1
    assert again.headers["x-tidegate-saved"] == first.headers["x-tidegate-cost"] != "0"
    assert again.headers["x-tidegate-cost"] == "0"
    assert int(again.headers["age"]) >= 0
    rows = {row["id"]: row for row in site.server.calls()}
    assert (rows[again.headers["x-request-id"]]["outcome"], rows[again.headers["x-request-id"]]["attempts"]) == (
        "answered",
        0,
    )


async def test_a_stream_is_replayed(site: Any) -> None:
    first, again = await site.say(ASKED, stream=True), await site.say(PUT, stream=True)
    assert result(again) == "semantic"
    assert again.content == first.content
    assert again.headers["content-type"].startswith("text/event-stream")


async def test_the_messages_route_too(site: Any) -> None:
    def body(text: str) -> dict[str, Any]:
        return {
            **site.chat(text),
            "model": "claude",
            "system": site.system,
            "messages": [{"role": "user", "content": text}],
        }

    assert result(await site.ask(body(ASKED), path="/v1/messages")) == "miss"
    assert result(await site.ask(body(PUT), path="/v1/messages")) == "semantic"


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
VARIANTS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"max_tokens": 9}, {}),
    ({"model": "cheap"}, {}),
    ({"seed": 1}, {}),
    ({"stop": ["x"]}, {}),
    ({"user": "u"}, {}),
    ({"n": 2}, {}),
    ({"stream": True}, {}),
    ({"response_format": {"type": "json_object"}}, {}),
    ({"temperature": 0.5}, {}),
    ({"unknown_field": 1}, {}),
    ({}, {"x_variant": "b"}),
    ({}, {"key": "sister"}),
    ({}, {"key": "other"}),
    ({}, {"cache_control": "no-store"}),
    ({}, {"cache_control": "no-cache"}),
    ({}, {"cache_control": "max-age=0"}),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: json.dumps(variant)[:40])
async def test_all_but_the_last_message_has_to_be_the_same(site: Any, variant: Any) -> None:
    more, headers = variant
    await site.say(ASKED)
    assert result(await site.ask(site.chat(PUT, **more), **headers)) in ("miss", "bypass")
    assert result(await site.say(PUT + " ")) == "semantic"


async def test_earlier_messages_have_to_be_the_same(site: Any) -> None:
    def body(system: str, text: str) -> dict[str, Any]:
        asked = site.chat(text)
        asked["messages"][0]["content"] += system
        return asked

    await site.ask(body("", ASKED))
    assert result(await site.ask(body("!", PUT))) == "miss"
    assert result(await site.ask(body("", PUT))) == "semantic"


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tool_choice": "none"},
        {"functions": [{"name": "f"}]},
        {"function_call": "none"},
        {"audio": {"voice": "a", "format": "wav"}},
    ],
    ids=lambda more: "+".join(more),
)
async def test_calls_with_tools_are_left_alone(site: Any, more: dict[str, Any]) -> None:
    await site.say(ASKED, **more)
    reply = await site.say(PUT, **more)
    assert reply.headers.get("x-tidegate-cache") != "semantic"


async def test_tool_messages_and_pictures_are_left_alone(site: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "y"},
    ]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}
    for earlier, content in ((said, lambda text: text), ([], lambda text: [{"type": "text", "text": text}, picture])):
        for text in (ASKED, PUT):
            body = site.chat(content(text))
            body["messages"][1:1] = earlier
            reply = await site.ask(body)
            assert reply.headers.get("x-tidegate-cache") != "semantic"


async def test_no_near_miss_is_served(site: Any, pairs: list[Any]) -> None:
    near = [pair for pair in pairs if not pair["same"]][::4]
    for index, pair in enumerate(near):
        await site.say(pair["one"], seed=index)
        assert result(await site.say(pair["other"], seed=index)) == "miss", pair


async def test_calls_that_draw_lots_only_where_configured(site: Any, open_site: Any) -> None:
    sampling = open_site("sampled = true")
    for one, wanted in ((site, "bypass"), (sampling, "semantic")):
        await one.say(ASKED, temperature=0.7)
        assert result(await one.say(PUT, temperature=0.7)) == wanted


@pytest.mark.parametrize("fake", ["errorbody", "html", "die=body", "truncate=3", "badjson"])
async def test_poisoned_answers_are_never_kept(site: Any, fake: str) -> None:
    for stream in (False, True):
        with contextlib.suppress(httpx2.RemoteProtocolError):
            await site.ask(site.chat(ASKED, stream=stream, seed=int(stream)), x_fake=fake)
        assert result(await site.say(PUT, stream=stream, seed=int(stream))) == "miss"


async def test_purge_by_client_and_model(site: Any) -> None:
    for option, value in (("--client", "acme"), ("--model", "dear"), ("--org", "one")):
        await site.say(ASKED)
        said = site.server.command("cache", "purge", option, value, "--json")
        assert json.loads(said.stdout)["purged"] >= 1
        assert result(await site.say(PUT)) == "miss"


async def test_thresholds_are_by_route_and_clients_share_where_configured(open_site: Any) -> None:
    strict = open_site('thresholds = { chat = 0.999 }\nshare = "org"')
    await strict.say(ASKED)
    assert result(await strict.say(PUT)) == "miss"
    assert result(await strict.ask(strict.chat(SAME), key="sister")) == "semantic"
    assert result(await strict.ask(strict.chat(SAME), key="other")) == "miss"


async def test_a_downgraded_answer_never_serves_a_call_that_may_not_be(open_site: Any) -> None:
    site = open_site('[policy.downgrade]\nchains = { dear = "cheap" }\nwhen = { always = true }')
    assert (await site.say(ASKED)).headers["x-tidegate-model"] == "cheap"
    exact = await site.ask(site.chat(PUT), x_tidegate_allow_downgrade="false")
    assert (result(exact), exact.headers["x-tidegate-model"]) == ("miss", "dear")


async def test_an_endpoint_may_embed_and_its_failure_costs_no_answer(open_site: Any, demo_process: Any) -> None:
    url = f"{demo_process.origin}/v1/embeddings"
    site = open_site(f'endpoint = "{url}"\nendpoint_model = "demo-embedding"\nendpoint_key = "upstream"')
    await site.say(ASKED)
    # Its vectors are by the text's digest: only the same text is near, put in a way that the exact cache sees as new.
    assert result(await site.say(SAME)) == "semantic"
    gone = open_site('endpoint = "http://127.0.0.1:9/v1/embeddings"\nendpoint_model = "m"')
    for _ in range(2):
        assert result(await gone.say(ASKED)) in ("miss", "hit")


async def test_many_at_once_all_get_an_answer(site: Any) -> None:
    replies = await asyncio.gather(*[site.say(ASKED, seed=index) for index in range(150)])
    assert {reply.status_code for reply in replies} == {200}


def test_without_the_extra_the_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.policy import PolicyError, build

    monkeypatch.setattr("policies.semantic.find_spec", lambda name: None if name == "wordllama" else object())
    build("semantic", {})
    with pytest.raises(PolicyError, match=r"tidegate\[semantic\]"):
        build("semantic", {"enabled": True})
