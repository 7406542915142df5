"""Starting, health, logs, reload and the commands around a running gateway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SERVE = (sys.executable, "-m", "gateway", "serve", "--listen")
CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]}


def test_first_start_makes_keys_once(start: Any) -> None:
    """Not on a terminal: written to a 0600 file whose path is printed."""
    server = start(env={"TIDEGATE_ADMIN_KEY": "", "TIDEGATE_CLIENT_KEY": ""})
    path = server.folder / "data" / "first-keys.txt"
    assert path.stat().st_mode & 0o777 == 0o600
    assert str(path) in server.output
    secrets = [word for word in path.read_text().split() if word.startswith("tg-")]
    assert len(secrets) == 2
    assert all(secret not in server.output for secret in secrets)
    assert 200 in [server.request("POST", "/v1/chat/completions", CHAT, key=secret)[0] for secret in secrets]


def test_keys_from_the_environment_are_taken(start: Any) -> None:
    server = start()
    assert server.request("POST", "/v1/chat/completions", CHAT)[0] == 200
    assert server.request("GET", "/metrics", key="tg-test-admin-key")[0] == 200
    assert server.request("GET", "/metrics")[0] == 403
    assert server.request("GET", "/metrics", key=None)[0] == 401


def test_the_fake_provider_is_a_worker_too(gateway: Any) -> None:
    status, _, body = gateway.request("POST", "/workers/demo/api/execute", {"action": "x"}, key="tg-test-shared-key")
    assert status == 200
    assert json.loads(body)["success"]


def test_banner_says_it_is_fake(start: Any) -> None:
    server = start()
    assert "FAKE" in server.output
    assert f"{server.address}/v1" in server.output


def test_a_key_in_the_environment_makes_its_provider_live(start: Any) -> None:
    server = start(env={"OPENAI_API_KEY": "sk-x", "ANTHROPIC_API_KEY": "sk-y"})
    assert "FAKE" not in server.output
    shown = server.tidegate("config", "show", "--json", "-c", str(server.config))
    assert "sk-x" not in json.dumps(shown)


def test_health_pages(gateway: Any) -> None:
    assert gateway.request("GET", "/livez", key=None)[0] == 200
    assert json.loads(gateway.request("GET", "/readyz", key=None)[2]) == {"status": "ready", "reasons": []}
    assert set(json.loads(gateway.request("GET", "/health", key=None)[2])["components"]) >= {"ledger", "server"}
    about = json.loads(gateway.request("GET", "/", key=None)[2])
    assert about["name"] == "tidegate"
    assert about["version"]


def test_metrics_know_every_policy(gateway: Any) -> None:
    gateway.request("POST", "/v1/chat/completions", CHAT, key="tg-test-shared-key")
    status, headers, page = gateway.request("GET", "/metrics", key="tg-test-admin-key")
    assert status == 200
    text = page.decode()
    for name in ("identity", "access", "quota"):
        assert f'tidegate_policy_calls_total{{policy="{name}"}}' in text
    assert 'tidegate_calls_total{fault="",outcome="served",provider="demo",route="chat",status="200"}' in text
    _, headers, page = gateway.request(
        "GET", "/metrics", key="tg-test-admin-key", accept="application/openmetrics-text; version=1.0.0"
    )
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert page.rstrip().endswith(b"# EOF")


def test_one_structured_line_a_call(gateway: Any) -> None:
    _, headers, _ = gateway.request("POST", "/v1/chat/completions", CHAT, key="tg-test-shared-key")
    deadline = time.monotonic() + 20
    while headers["x-request-id"] not in gateway.output:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lines = [json.loads(line) for line in gateway.output.splitlines() if headers["x-request-id"] in line]
    assert len(lines) == 1
    assert lines[0]["event"] == "call"
    assert lines[0]["client"] == "tester"
    assert lines[0]["input_tokens"] > 0


def test_usage_tables(gateway: Any) -> None:
    gateway.request("POST", "/v1/chat/completions", CHAT, key="tg-test-shared-key")
    rows = gateway.tidegate("usage", "--by", "client,model,day", "--json")
    mine = [row for row in rows if row["client"] == "tester" and row["model"] == "demo-small"]
    assert mine
    assert mine[0]["calls"] >= 1
    assert mine[0]["input_tokens"] > 0
    table = gateway.command("usage", "--by", "client,model").stdout
    assert "demo-small" in table


def edit(server: Any, text: str) -> None:
    server.config.write_text(text)


def limited(per_minute: int) -> str:
    return f'[policy.quota]\nrequests = ["{per_minute}/minute"]\n'


@pytest.mark.parametrize("how", ["command", "signal", "watch"])
def test_reload_swaps_and_an_invalid_file_changes_nothing(start: Any, how: str) -> None:
    server = start(limited(100), **({"set": "server.watch=true"} if how == "watch" else {}))

    def reload() -> None:
        if how == "command":
            server.command("reload", "-c", str(server.config))
        elif how == "signal":
            os.kill(server.process.pid, signal.SIGHUP)

    def limit() -> str:
        headers: dict[str, str] = server.request("POST", "/v1/chat/completions", CHAT)[1]
        return headers["x-ratelimit-limit-requests"]

    assert limit() == "100"
    edit(server, limited(77))
    reload()
    deadline = time.monotonic() + 20
    while limit() != "77":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    edit(server, '[policy.quota]\nrequests = ["many"]\n')
    reload()
    deadline = time.monotonic() + 20
    while how != "command" and "refused" not in server.output:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert limit() == "77"


def test_reload_says_what_is_wrong(start: Any) -> None:
    server = start()
    edit(server, "[server]\nlisten = 7\n")
    done = server.command("reload", "-c", str(server.config))
    assert done.returncode == 1
    assert "listen" in done.stderr
    assert "stays" in done.stderr


def test_calls_under_way_survive_a_reload(start: Any, demo: Any) -> None:
    import threading

    config = f"""
[providers.demo]
kind = "openai"
base_url = "{demo.origin}/v1"
pass_headers = ["x-fake"]
[models.demo-small]
targets = ["demo/demo-small"]
"""
    server = start(config)
    results: list[Any] = []

    def call() -> None:
        results.append(
            server.request("POST", "/v1/chat/completions", {**CHAT, "stream": True}, x_fake="chunks=40; chunk_ms=60")
        )

    thread = threading.Thread(target=call)
    thread.start()
    deadline = time.monotonic() + 20
    while demo.stats()["in_flight"] == 0:
        assert time.monotonic() < deadline
    edit(server, config.replace("x-fake", "x-other"))
    assert server.command("reload", "-c", str(server.config)).returncode == 0
    thread.join()
    status, _, body = results[0]
    assert status == 200
    assert b"[DONE]" in body


def test_observing_quota_lets_pass_and_says_so(start: Any) -> None:
    server = start('[policy.quota]\nrequests = ["1/minute"]\nmode = "observe"\n')
    statuses = [server.request("POST", "/v1/chat/completions", CHAT)[0] for _ in range(3)]
    assert statuses == [200, 200, 200]
    deadline = time.monotonic() + 20
    while "quota" not in server.output:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    page = server.request("GET", "/metrics", key="tg-test-admin-key")[2].decode()
    assert 'tidegate_policy_decisions_total{decision="refused",mode="observe",policy="quota"} 2.0' in page


def test_identity_can_not_be_observed(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[policy.identity]\nmode = "observe"\n')
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "check", "-c", str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "identity" in done.stderr + done.stdout


def test_demo_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "demo", "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    assert [step["status"] for step in page["calls"]] == [200, 200, 200, 429]
    assert page["usage"]


def test_port_in_use_is_a_sentence(gateway: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        [*SERVE, f"127.0.0.1:{gateway.port}", "--data-dir", str(tmp_path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_on_one_data_directory(gateway: Any) -> None:
    done = subprocess.run(
        [*SERVE, "127.0.0.1:0", "--data-dir", str(gateway.folder / "data")],
        capture_output=True, text=True, timeout=60, env=gateway.env,
    )  # fmt: skip
    assert done.returncode == 1
    assert str(gateway.process.pid) in done.stderr


def test_sigterm_ends_cleanly(start: Any) -> None:
    server = start()
    server.request("POST", "/v1/chat/completions", CHAT)
    assert server.stop() == 0
