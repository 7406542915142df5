"""`tidegate budget` against a running gateway: what it changes holds for the next call and after a restart."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

CONFIG = """
policies = ["identity", "access", "quota", "budget"]
[providers.fake]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
[models.metered]
targets = ["fake/demo-small"]
[prices.metered]
input = 0
output = 10
[clients.acme]
budget = {{ month_usd = 0.0015, hard = true }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
"""
BODY = {"model": "metered", "max_tokens": 100, "messages": [{"role": "user", "content": "Count to a hundred."}]}


def call(server: Any) -> tuple[int, dict[str, str], Any]:
    status, headers, body = server.request(
        "POST", "/v1/chat/completions", BODY, "tg-acme-secret-key", x_fake="chunks=100"
    )
    return status, headers, json.loads(body)


def logged(server: Any, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def test_top_ups_and_overrides_with_a_reason_kept_as_history(start: Callable[..., Any], demo: Any) -> None:
    config = CONFIG.format(origin=demo.origin).replace('"upstream"', '"upstream"\npass_headers = ["x-fake"]')
    server = start(config)
    budget = ("budget",)
    assert call(server)[0] == 200
    status, headers, page = call(server)
    assert (status, page["error"]["code"], headers["x-should-retry"]) == (429, "insufficient_quota", "false")
    assert "may cost 0.001 USD" in page["error"]["message"]
    assert "0.0005 USD of 0.0015 USD left" in page["error"]["message"]
    assert not logged(server, "budget_stop")  # 66 % are spent
    (level,) = server.tidegate(*budget, "show", "client:acme", "--json", "-c", str(server.config))
    assert (level["limit_usd"], level["used_usd"], level["left_usd"]) == ("0.0015", "0.001", "0.0005")

    made = server.tidegate(*budget, "top-up", "client:acme", "0.0005", "-m", "launch week", "--json")
    assert (made["action"], made["reason"]) == ("top_up", "launch week")
    assert call(server)[0] == 200
    assert call(server)[0] == 429
    for name in ("budget_warning", "budget_critical", "budget_stop"):
        (line,) = logged(server, name)
        assert (line["scope"], line["subject"], line["span"]) == ("client", "acme", "month")
        assert (line["used_usd"], line["limit_usd"], line["hard"]) == ("0.002", "0.002", True)
    assert logged(server, "budget_changed")[0]["reason"] == "launch week"
    without = server.command(*budget, "top-up", "client:acme", "5")
    assert without.returncode == 2
    assert "--reason" in without.stderr

    server.tidegate(*budget, "override", "client:acme", "0.0030", "-m", "a bigger plan", "--json")
    assert call(server)[0] == 200
    server.restart()
    (level,) = server.tidegate(*budget, "show", "client:acme", "--json")
    assert (level["limit_usd"], level["used_usd"]) == ("0.0035", "0.003")
    assert call(server)[0] == 429
    history = server.tidegate(*budget, "history", "client:acme", "--json")
    assert [(one["action"], one["amount_usd"], one["reason"]) for one in history] == [
        ("top_up", "0.0005", "launch week"),
        ("override", "0.003", "a bigger plan"),
    ]
    server.tidegate(*budget, "override", "client:acme", "configured", "-m", "over", "--json")
    (level,) = server.tidegate(*budget, "show", "client:acme", "--json")
    assert level["limit_usd"] == "0.002"
    assert "launch week" in server.command(*budget, "history").stdout
