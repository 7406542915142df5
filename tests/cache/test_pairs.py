"""Pairwise: of calls that differ in anything that may change an answer, none is served with another one's."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

#: What may differ: bodies' fields, headers, and who asks. The first of each is the plain call.
FIELDS: dict[str, tuple[Any, ...]] = {
    "max_tokens": (8, 9),
    "seed": (None, 1),
    "stop": (None, ["x"]),
    "top_p": (None, 0.5),
    "user": (None, "u"),
    "n": (None, 2),
    "logit_bias": (None, {"1": 2}),
    "presence_penalty": (None, 0.5),
    "frequency_penalty": (None, 0.5),
    "response_format": (None, {"type": "json_object"}),
    "tools": (None, [{"type": "function", "function": {"name": "f"}}]),
    "reasoning_effort": (None, "low"),
    "service_tier": (None, "flex"),
    "metadata": (None, {"a": "b"}),
    "logprobs": (None, True),
    "unknown": (None, 1),
    "temperature": (0, 0.0, -0.0),
}
HEADERS: dict[str, tuple[str | None, ...]] = {"x_variant": (None, "b"), "accept": (None, "application/json")}
KEYS = ("acme", "sister", "other")


def variants() -> list[tuple[dict[str, Any], dict[str, str], str]]:
    """The plain call, each change alone, and each pair of changes of different kinds."""
    single: list[tuple[str, str, Any]] = [
        ("field", name, value) for name, values in FIELDS.items() if name != "temperature" for value in values[1:]
    ]
    single += [("header", name, value) for name, values in HEADERS.items() for value in values[1:]]
    single += [("key", "key", key) for key in KEYS[1:]]
    pairs = [pair for pair in itertools.combinations(single, 2) if pair[0][:2] != pair[1][:2]]
    found = []
    for changes in [(), *[(one,) for one in single], *pairs]:
        fields = {name: value for kind, name, value in changes if kind == "field"}
        headers = {name: value for kind, name, value in changes if kind == "header"}
        key = next((value for kind, _, value in changes if kind == "key"), "acme")
        found.append((fields, headers, key))
    return found


async def test_every_parameter_header_and_client_makes_another_question(site: Any) -> None:
    body, before = site.chat(), site.upstream()
    asked = variants()
    gate = asyncio.Semaphore(40)

    async def ask(fields: dict[str, Any], headers: dict[str, str], key: str) -> Any:
        async with gate:
            return await site.ask({**body, **fields}, key=key, **headers)

    first = await asyncio.gather(*[ask(*one) for one in asked])
    assert {answer.headers["x-tidegate-cache"] for answer in first} == {"miss"}
    assert site.upstream() == before + len(asked)
    again = await asyncio.gather(*[ask(*one) for one in reversed(asked)])
    for one, other in zip(first, reversed(again), strict=True):
        assert other.headers["x-tidegate-cache"] == "hit"
        assert other.json()["id"] == one.json()["id"]
    assert len({answer.json()["id"] for answer in first}) == len(asked)
    assert site.upstream() == before + len(asked)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions?api-version=2"])
async def test_the_query_is_part_of_the_question(site: Any, path: str) -> None:
    body = site.chat()
    await site.ask(body, path="/v1/chat/completions?api-version=1")
    assert (await site.ask(body, path=path)).headers["x-tidegate-cache"] == "miss"


@pytest.mark.parametrize("number", [10**20, 2**64, -(2**63) - 1])
async def test_numbers_too_long_for_a_float_are_told_apart(site: Any, number: int) -> None:
    """Read as floats they are equal; the provider sees each digit."""
    body = site.chat()
    for one in (number, number - 1):
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "integer", "maximum": one}}}
        assert (await site.ask({**body, "tools": [tool]})).headers["x-tidegate-cache"] == "miss"
        assert (await site.ask({**body, "tools": [tool]})).headers["x-tidegate-cache"] == "hit"


async def test_the_age_that_counts_is_the_one_of_who_asks(open_site: Any) -> None:
    site = open_site("[policy.cache]\nttl_s = 600\ntemplates = { quick = 1 }")
    body = site.chat()
    await site.ask(body)
    await asyncio.sleep(1.1)
    assert (await site.ask(body, x_tidegate_template="quick")).headers["x-tidegate-cache"] == "miss"
    assert (await site.ask(body)).headers["x-tidegate-cache"] == "hit"


async def test_age_by_template_and_by_header(open_site: Any) -> None:
    site = open_site("[policy.cache]\nttl_s = 600\nroutes = { chat = 0 }\ntemplates = { quick = 3, long = 600 }")
    body = site.chat()
    assert "x-tidegate-cache" not in (await site.ask(body)).headers  # off on this route
    assert (await site.ask(body, x_tidegate_template="quick")).headers["x-tidegate-cache"] == "miss"
    assert (await site.ask(body, x_tidegate_template="quick")).headers["x-tidegate-cache"] == "hit"
    assert (await site.ask(body, x_tidegate_template="unheard")).headers.get("x-tidegate-cache") is None
    await asyncio.sleep(3.1)
    assert (await site.ask(body, x_tidegate_template="long")).headers["x-tidegate-cache"] == "miss"
    await asyncio.sleep(1.1)
    assert (await site.ask(body, x_tidegate_template="long")).headers["x-tidegate-cache"] == "hit"
    young = await site.ask(body, x_tidegate_template="long", cache_control="max-age=1")
    assert young.headers["x-tidegate-cache"] == "miss"


@pytest.mark.parametrize("fake", ["die=body", "truncate=3", "errorbody"])
async def test_a_dying_upstream_leaves_nothing_to_its_followers(site: Any, fake: str) -> None:
    body, before = site.chat(), site.upstream()
    answers = await asyncio.gather(*[site.ask(body, x_fake=f"latency-ms=600; {fake}") for _ in range(3)])
    assert not any(answer.headers.get("x-tidegate-cache") == "hit" for answer in answers)
    assert site.upstream() >= before + 3


async def test_headers_of_one_name_count_together(site: Any) -> None:
    """However they are split; and in their order, which may matter to who reads them."""

    async def ask(body: dict[str, Any], *headers: tuple[str, str]) -> str:
        sent = [("authorization", "Bearer tg-acme-secret-key"), *headers]
        answer = await site.http.post("/v1/chat/completions", json=body, headers=sent)
        return str(answer.headers["x-tidegate-cache"])

    body, fresh = site.chat(), ("cache-control", "max-age=60")
    assert await ask(body, ("cache-control", "no-store"), fresh) == "bypass"
    assert await ask(body, fresh) == "miss"
    assert await ask(body, ("cache-control", "no-cache"), fresh) == "bypass"
    assert await ask(body, ("cache-control", "max-age=0"), fresh) == "bypass"
    assert await ask(body, fresh, ("cache-control", "max-stale=5")) == "hit"
    one, other = ("x-of-theirs", "1"), ("x-of-theirs", "2")
    assert [await ask(body, *pair) for pair in ((one, other), (other, one), (one, other))] == ["miss", "miss", "hit"]
