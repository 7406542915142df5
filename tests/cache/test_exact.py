"""The exact cache: what is a hit, what never is, and what a hit costs and says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.control.socket import ask as control


async def test_a_hit_is_the_same_answer_for_no_money(site: Any) -> None:
    body = site.chat()
    first = await site.ask(body)
    before = site.upstream()
    again = await site.ask(body)
    assert site.upstream() == before
    assert (first.headers["x-tidegate-cache"], again.headers["x-tidegate-cache"]) == ("miss", "hit")
    assert again.content == first.content
    assert again.headers["x-tidegate-saved"] == first.headers["x-tidegate-cost"]
    assert again.headers["x-tidegate-cost"] == "0"
    assert int(again.headers["age"]) >= 0
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    rows = {row["id"]: row for row in site.server.calls()}
    hit = rows[again.headers["x-request-id"]]
    assert (hit["outcome"], hit["attempts"], hit["input_tokens"]) == ("answered", 0, 0)


async def test_a_stream_is_replayed_as_it_was(site: Any) -> None:
    body = site.chat(stream=True, stream_options={"include_usage": True})
    first, again = await site.ask(body), await site.ask(body)
    assert again.headers["x-tidegate-cache"] == "hit"
    assert again.headers["content-type"].startswith("text/event-stream")
    assert again.content == first.content
    assert again.content.endswith(b"data: [DONE]\n\n")


VARIANTS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"max_tokens": 9}, {}),
    ({"seed": 1}, {}),
    ({"stop": ["x"]}, {}),
    ({"user": "u"}, {}),
    ({"metadata": {"a": "b"}}, {}),
    ({"n": 2}, {}),
    ({"top_p": 0.5}, {}),
    ({"response_format": {"type": "json_object"}}, {}),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {}),
    ({"stream": True, "stream_options": {"include_obfuscation": False}}, {}),
    ({"temperature": 0.0, "logprobs": True}, {}),
    ({"unknown_field": 1}, {}),
    ({}, {"x_variant": "b"}),
    ({}, {"key": "sister"}),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: json.dumps(variant)[:40])
async def test_whatever_differs_is_no_hit(site: Any, variant: tuple[dict[str, Any], dict[str, str]]) -> None:
    body, (more, headers) = site.chat(), variant
    await site.ask(body)
    other = await site.ask({**body, **more}, **headers)
    assert other.headers["x-tidegate-cache"] == "miss"
    assert (await site.ask(body)).headers["x-tidegate-cache"] == "hit"


async def test_what_says_nothing_of_the_question_does_not_matter(site: Any) -> None:
    body = site.chat()
    await site.ask(body)
    turned = dict(reversed(body.items()))
    again = await site.ask(turned, user_agent="another", x_stainless_retry_count="1", traceparent="00-1-2-3")
    assert again.headers["x-tidegate-cache"] == "hit"


@pytest.mark.parametrize("temperature", [None, 0.7, 1])
async def test_calls_that_draw_lots_are_not_cached(site: Any, temperature: float | None) -> None:
    body = site.chat()
    del body["temperature"]
    if temperature is not None:
        body["temperature"] = temperature
    for _ in range(2):
        assert (await site.ask(body)).headers["x-tidegate-cache"] == "bypass"


async def test_cache_control_of_the_caller(site: Any) -> None:
    body = site.chat()
    assert (await site.ask(body, cache_control="no-store")).headers["x-tidegate-cache"] == "bypass"
    assert (await site.ask(body)).headers["x-tidegate-cache"] == "miss"
    before = site.upstream()
    assert (await site.ask(body, cache_control="no-cache")).headers["x-tidegate-cache"] == "bypass"
    assert site.upstream() == before + 1
    assert (await site.ask(body, cache_control="max-age=60")).headers["x-tidegate-cache"] == "hit"
    assert (await site.ask(body, cache_control="max-age=0")).headers["x-tidegate-cache"] == "bypass"


@pytest.mark.parametrize("fake", ["status=500", "errorbody", "html", "die=body", "truncate=3", "badjson"])
async def test_poisoned_answers_are_never_kept(site: Any, fake: str) -> None:
    for stream in (False, True):
        body = site.chat(stream=stream)
        await site.ask(body, x_fake=fake)
        before = site.upstream()
        await site.ask(body, x_fake=fake)
        assert site.upstream() > before


async def test_purge_and_expiry(open_site: Any) -> None:
    site = open_site("[policy.cache]\nroutes = { embeddings = 3 }")
    body = site.chat()
    await site.ask(body)
    hit = await site.ask(body)
    said = site.server.command("cache", "purge", "--client", "sister", "--json")
    assert json.loads(said.stdout) == {"purged": 0}
    said = site.server.command("cache", "purge", "--key", hit.headers["x-tidegate-cache-key"], "--json")
    assert json.loads(said.stdout) == {"purged": 1}
    assert (await site.ask(body)).headers["x-tidegate-cache"] == "miss"
    text = {"model": "small", "input": body["messages"][0]["content"]}
    await site.ask(text, path="/v1/embeddings")
    assert (await site.ask(text, path="/v1/embeddings")).headers["x-tidegate-cache"] == "hit"
    await asyncio.sleep(3.1)
    assert (await site.ask(text, path="/v1/embeddings")).headers["x-tidegate-cache"] == "miss"


async def test_orgs_are_a_wall_and_clients_share_only_where_configured(open_site: Any) -> None:
    site = open_site('[policy.cache]\nshare = "org"')
    body = site.chat()
    await site.ask(body)
    assert (await site.ask(body, key="sister")).headers["x-tidegate-cache"] == "hit"
    assert (await site.ask(body, key="other")).headers["x-tidegate-cache"] == "miss"


async def test_messages_of_the_other_dialect(site: Any) -> None:
    body = {**site.chat(), "model": "claude"}
    first = await site.ask(body, path="/v1/messages")
    again = await site.ask(body, path="/v1/messages")
    assert (first.headers["x-tidegate-cache"], again.headers["x-tidegate-cache"]) == ("miss", "hit")
    other = await site.ask(body, path="/v1/messages", anthropic_beta="x-1")
    assert other.headers["x-tidegate-cache"] == "miss"


async def test_purge_by_the_public_name_reaches_what_was_asked_by_an_alias(open_site: Any) -> None:
    site = open_site('[models.big]\ntargets = ["fake/demo-large"]\naliases = ["huge"]')
    body = {**site.chat(), "model": "huge"}
    for name in ("big", "huge"):
        await site.ask(body)
        assert site.server.tidegate("cache", "purge", "--model", name, "--json") == {"purged": 1}


async def test_an_answer_under_way_when_others_are_purged_is_not_kept(site: Any) -> None:
    body, before = site.chat(), site.upstream()
    asked = asyncio.ensure_future(site.ask(body, x_fake="latency-ms=2500"))
    await site.under_way(before)
    await control(site.server.folder / "data", "cache_purge", client="acme")  # a command of its own takes a second
    assert not asked.done()
    assert (await asked).status_code == 200
    assert (await site.ask(body, x_fake="latency-ms=2500")).headers["x-tidegate-cache"] == "miss"
