"""Advice of a running gateway: what it promises is what comes of it, and nobody's words are in the ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from typing import Any


def ask(server: Any, text: str, key: str = "acme", model: str = "gpt-4", **more: Any) -> dict[str, str]:
    headers = more.pop("headers", {})
    body = {"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": text}], **more}
    status, said, answer = server.request("POST", "/v1/chat/completions", body, f"tg-{key}-secret-key", **headers)
    assert status == 200, answer
    return dict(said)


def week(server: Any, times: int = 3) -> None:
    """Three questions that draw lots, each asked again; one that must be exact; another client's."""
    for _ in range(times):
        for text in ("Ebb?", "Flow?", "Slack?"):
            ask(server, text)
    ask(server, "Exact.", headers={"x_tidegate_accuracy": "high"})
    ask(server, "Ebb?", key="other")


def advice(server: Any, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = server.tidegate("advise", "--json", "--config", str(server.config), *arguments)
    return found


def spent(server: Any) -> Decimal:
    return sum((Decimal(call["cost_usd"]) for call in server.calls()), Decimal(0))


def test_what_is_promised_comes_true(start_site: Callable[..., Any]) -> None:
    before = start_site()
    week(before)
    said = advice(before)
    assert Decimal(said["cost_usd"]) == spent(before) > 10
    savings = [Decimal(one["saving_usd"]) for one in said["recommendations"]]
    assert sum(savings) == Decimal(said["saving_usd"])
    types = [one["type"] for one in said["recommendations"]]
    assert types == ["caching", "model_downgrade"]
    assert said["recommendations"][0]["calls"] == 6
    assert all(one["basis"]["calls"] == 11 and one["basis"]["assumes"] for one in said["recommendations"])
    first = said["recommendations"][0]
    after = start_site(first["toml"])
    week(after)
    assert spent(before) - spent(after) == Decimal(first["saving_usd"])
    rest = advice(after)["recommendations"]
    assert [one["type"] for one in rest] == ["model_downgrade"], "what is done already is not recommended again"
    every = start_site(said["toml"])
    week(every)
    assert abs(spent(before) - spent(every) - Decimal(said["saving_usd"])) < spent(before) / 100  # a model's own words
    assert "model_downgrade" not in [one["type"] for one in advice(every)["recommendations"]]


def test_what_is_in_force_now_is_not_recommended_for_calls_from_before(start_site: Callable[..., Any]) -> None:
    """Its savings are of the past; what comes on top of it is said as that."""
    server = start_site()
    week(server)
    _, cheaper = advice(server)["recommendations"]
    server.config.write_text(server.config.read_text() + cheaper["toml"])
    assert server.command("reload").returncode == 0
    said = advice(server)
    (left,) = said["recommendations"]
    assert left["type"] == "caching"
    assert Decimal(left["saving_usd"]) == Decimal(said["saving_usd"])
    assert 0 < Decimal(said["saving_usd"]) < 5, "hits of the cheaper model, not of the dear one"


def test_one_client_at_a_time_and_who_may_ask(start_site: Callable[..., Any]) -> None:
    server = start_site()
    week(server)
    said = advice(server, "--client", "other")
    assert said["calls"] == 1
    assert said["client"] == "other"
    path = "/control/v1/advice?client=acme&days=2"
    assert server.request("GET", path, key="tg-service-secret-key")[0] == 200
    assert server.request("GET", path, key="tg-viewer-secret-key")[0] == 403
    assert server.request("GET", path, key="tg-acme-secret-key")[0] == 403
    assert server.request("GET", path, key=None)[0] == 401
    assert server.request("GET", "/control/v1/advice?days=0", key="tg-service-secret-key")[0] == 400
    printed = server.command("advise", "--config", str(server.config)).stdout
    assert "[policy.cache]" in printed
    assert "sampled = true" in printed
    assert "Assumes that" in printed


def test_a_hit_by_likeness_is_lost_with_the_answer_that_it_came_from(start_site: Callable[..., Any]) -> None:
    server = start_site("[policy.semantic]\nenabled = true\n")
    ask(server, "How do I reset my password?", temperature=0)
    hit = ask(server, "Please tell me how I reset my password.", temperature=0)
    assert hit["x-tidegate-cache"] == "semantic"
    (rule,) = advice(server)["recommendations"]
    assert rule["type"] == "model_downgrade"
    dear, cheap = Decimal(server.calls()[1]["cost_usd"]), Decimal(0)
    for price, tokens in ((5000, "input_tokens"), (15000, "output_tokens")):
        cheap += Decimal(price) * server.calls()[1][tokens] / 1_000_000
    assert Decimal(rule["saving_usd"]) == dear - 2 * cheap


def test_the_ledger_has_digests_and_no_words(start_site: Callable[..., Any]) -> None:
    server = start_site()
    secret = "the-harbour-master-is-asleep"
    ask(server, secret, temperature=0)
    ask(server, secret, temperature=0)
    body = {"temperature": 0, "messages": [{"content": secret, "role": "user"}], "max_tokens": 20, "model": "gpt-4"}
    assert server.request("POST", "/v1/chat/completions", body, "tg-acme-secret-key")[0] == 200
    ask(server, secret, key="other", temperature=0)
    ask(server, secret)
    rows = server.calls()
    questions = [row["question"] for row in rows]
    assert questions[0].startswith("~")
    assert questions[1].startswith("=")
    assert len(set(questions[2:5])) == 1, "the order of names is not part of the question"
    assert questions[1] != questions[2], "digests of two orgs can't be compared"
    assert rows[2]["saving"] == "cache"
    assert Decimal(rows[2]["saved_usd"]) == Decimal(rows[4]["cost_usd"])
    assert "saved" in server.command("usage", "--by", "client", "--config", str(server.config)).stdout.lower()
    server.stop()
    with closing(sqlite3.connect(server.folder / "data" / "tidegate.db")) as connection:
        assert secret not in "\n".join(connection.iterdump())


def test_without_digests_nothing_is_kept(start_site: Callable[..., Any]) -> None:
    server = start_site("[records]\nquestions = false\n")
    ask(server, "Ebb?")
    assert server.calls()[0]["question"] is None
