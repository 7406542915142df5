"""Observed, the cache tells what it would have done, and nothing is said to be saved."""

from __future__ import annotations

from typing import Any


async def test_a_hit_that_was_only_observed_saves_nothing(open_site: Any) -> None:
    site = open_site('[policy.cache]\nmode = "observe"')
    body, before = site.chat(), site.upstream()
    for _ in range(2):
        assert "x-tidegate-cache" not in (await site.ask(body)).headers
    assert site.upstream() == before + 2
    (row,) = site.server.tidegate("usage", "--json")
    assert row["saved_usd"] == "0"
    newest = site.server.calls()[0]
    assert newest["notes"] == {"observed": ["cache: would change the call"]}
    metrics = (await site.http.get("/metrics", headers={"accept": "text/plain"})).text
    assert 'tidegate_cache_saved_picodollars_total{route="chat"}' not in metrics
