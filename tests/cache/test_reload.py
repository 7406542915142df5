"""What a reload changes of the answers that are kept: those of other settings are not given again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


@pytest.mark.parametrize("changed", ['headers = { "openai-beta" = "new" }', 'query = { "api-version" = "2" }'])
async def test_what_is_sent_along_is_part_of_the_question(open_site: Any, changed: str) -> None:
    site = open_site("")
    body, file = site.chat(), site.server.config
    await site.ask(body)
    assert site.server.command("reload").returncode == 0
    assert (await site.ask(body)).headers["x-tidegate-cache"] == "hit"
    file.write_text(file.read_text().replace("max_concurrent = 600", f"max_concurrent = 600\n{changed}", 1))
    assert site.server.command("reload").returncode == 0
    assert (await site.ask(body)).headers["x-tidegate-cache"] == "miss"


async def test_what_is_put_into_the_body_is_part_of_the_question(open_site: Any) -> None:
    """An answer that was not cut is none to a question that would be."""
    site = open_site("")
    body, file = site.chat(), site.server.config
    del body["max_tokens"]
    await site.ask(body)
    known = 'targets = ["fake/demo-small"]'
    for more in ("enforce_output_cap = true", "enforce_output_cap = true\ndefault_output_tokens = 5"):
        file.write_text(file.read_text().replace(known, f"{known}\n{more}", 1))
        assert site.server.command("reload").returncode == 0
        assert [(await site.ask(body)).headers["x-tidegate-cache"] for _ in range(2)] == ["miss", "hit"]
        file.write_text(file.read_text().replace(f"{known}\n{more}", known, 1))
    assert site.server.command("reload").returncode == 0
    assert (await site.ask(body)).headers["x-tidegate-cache"] == "hit"


async def test_a_shorter_age_counts_at_once(open_site: Any) -> None:
    site = open_site("[policy.cache]\nttl_s = 600")
    body, file = site.chat(), site.server.config
    await site.ask(body)
    file.write_text(file.read_text().replace("ttl_s = 600", "ttl_s = 1"))
    assert site.server.command("reload").returncode == 0
    await asyncio.sleep(1.1)
    assert (await site.ask(body)).headers["x-tidegate-cache"] == "miss"


async def test_a_header_that_goes_up_by_configuration_is_part_of_the_question(open_site: Any) -> None:
    """Else it says nothing of the question: a provider of AI never sees it."""
    site = open_site("")
    body, file = site.chat(), site.server.config
    await site.ask(body, accept_language="de")
    assert (await site.ask(body, accept_language="fr")).headers["x-tidegate-cache"] == "hit"
    file.write_text(file.read_text().replace('["x-fake", "x-variant"]', '["accept-language"]'))
    assert site.server.command("reload").returncode == 0
    assert (await site.ask(body, accept_language="de")).headers["x-tidegate-cache"] == "miss"
    assert (await site.ask(body, accept_language="fr")).headers["x-tidegate-cache"] == "miss"
    assert (await site.ask(body, accept_language="de")).headers["x-tidegate-cache"] == "hit"


async def test_targets_that_share_the_load_share_answers(open_site: Any) -> None:
    second = '[providers.second]\nkind = "openai"\nbase_url = "{origin}/v1"\napi_key = "upstream"\n'
    targets = [f'{{ to = "{name}/demo-small", weight = 1 }}' for name in ("fake", "second")]
    site = open_site("")
    origin = site.demo.origin
    site = open_site(second.format(origin=origin) + f"[models.shared]\ntargets = [{', '.join(targets)}]")
    body, before = {**site.chat(), "model": "shared"}, site.upstream()
    for _ in range(12):
        await site.ask(body)
    assert site.upstream() == before + 1
