"""What an operator reads: reloads that are refused or pending, log lines for people and for machines, pages."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway import logs
from gateway.app import Gateway
from gateway.config import load
from gateway.directory import DirectoryError

BAD = '[server]\nlistn = "127.0.0.1:1"\n'
CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]}


def until(ready: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = ready()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def lines(server: Any) -> list[dict[str, Any]]:
    """Every line of its output, each of which has to be JSON."""
    return [json.loads(line) for line in server.output.splitlines()]


def configuration(server: Any) -> dict[str, Any]:
    page = json.loads(server.request("GET", "/health", key=None)[2])
    found: dict[str, Any] = page["components"]["configuration"]
    return found


def test_in_a_pipe_everything_is_a_line_of_json(start: Any) -> None:
    server = start(env={"TIDEGATE_ADMIN_KEY": "", "TIDEGATE_CLIENT_KEY": "", "OPENAI_API_KEY": "sk-x"})
    server.command("clients", "create", "a", "--tier", "gold")
    server.config.write_text(BAD)
    server.command("reload")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "reload refused" in server.output)
    assert server.stop() == 0
    found = {line["event"]: line for line in lines(server)}
    ready = next(line for event, line in found.items() if event.endswith("is ready"))
    assert ready["openai_base_url"] == f"{server.address}/v1"
    assert ready["providers"] == "openai"
    assert ready["first_keys"].endswith("first-keys.txt")
    assert found["draining"]["calls"] == 0
    assert "stopped; everything is recorded" in found
    refused = found["a command was refused"]
    assert "Error(" not in server.output
    assert refused["level"] == "info"


def test_a_refused_reload_is_told_and_kept_in_mind(start: Any) -> None:
    server = start()
    assert configuration(server) == {"status": "ok", "reasons": []}
    server.config.write_text(BAD)
    done = server.command("reload", "--data-dir", str(server.folder / "data"))
    assert done.returncode == 1
    assert "did you mean 'listen'?" in done.stderr
    assert "stays as it was" in done.stderr
    for more in ((), ("--data-dir", str(server.folder / "data"))):
        page = server.command("reload", "--json", "-c", str(server.config), *more)
        answer = json.loads(page.stdout)
        assert (page.returncode, answer["ok"], answer["problems"][0]["key"]) == (1, False, "listn")
    degraded = configuration(server)
    assert degraded["status"] == "degraded"
    assert "refused" in degraded["reasons"][0]
    assert "listn" not in degraded["reasons"][0], "the page is public"
    assert server.request("GET", "/readyz", key=None)[0] == 200, "it serves all the same"
    server.config.write_text("")
    assert server.tidegate("reload", "--json")["ok"]
    assert configuration(server) == {"status": "ok", "reasons": []}


def test_what_waits_for_a_restart_is_told_at_every_reload(start: Any) -> None:
    server = start()
    server.config.write_text("[server]\ndrain_s = 7\n")
    assert server.tidegate("reload", "--json")["needs_restart"] == ["server.drain_s"]
    assert server.tidegate("reload", "--json") == {"ok": True, "changed": [], "needs_restart": ["server.drain_s"]}
    text = server.command("reload").stdout
    assert text == "Reloaded: nothing changed.\nOnly a restart changes: server.drain_s\n"
    server.config.write_text("")
    assert server.tidegate("reload", "--json")["needs_restart"] == []


async def test_a_refused_reload_leaves_nothing_of_itself(tmp_path: Path) -> None:
    """What belongs to the gateway is set before the clients are found wrong."""
    path = tmp_path / "gateway.toml"
    path.write_text(f'[server]\ndata_dir = "{tmp_path / "data"}"\n')
    keys = {"TIDEGATE_ADMIN_KEY": "tg-0123456789-admin", "TIDEGATE_CLIENT_KEY": "tg-0123456789-client"}
    gateway = Gateway(load(path, {}, {}), keys)
    await gateway.open()
    try:
        before = gateway.scheduler.http_wait_cap_s, gateway.orgs
        clash = "[clients.default]\n[orgs.a]\nbudget = { day_usd = 1 }\n"
        path.write_text(f'[server]\ndata_dir = "{tmp_path / "data"}"\nhttp_wait_cap_s = 7\n{clash}')
        with pytest.raises(DirectoryError, match=r"stands in gateway\.toml and in the database"):
            await gateway.reload()
        assert (gateway.scheduler.http_wait_cap_s, gateway.orgs) == before
    finally:
        await gateway.aclose()


def test_a_gateway_that_does_not_answer_is_told(start: Any) -> None:
    server = start()
    server.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        done = server.command("reload", "--timeout", "0.5")
        assert done.returncode == 1
        assert "did not answer reload within 0.5 s: is its process stopped or stuck?" in done.stderr
        assert time.monotonic() - began < 20
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_a_watched_file_may_be_replaced(start: Any) -> None:
    server = start("[server]\nwatch = true\n")
    for number in (1, 2):
        new = server.folder / "new.toml"
        new.write_text(f"[server]\nwatch = true\n[clients.c{number}]\n")
        os.replace(new, server.config)
        until(lambda number=number: f"clients.c{number}" in server.output)


def test_on_a_terminal_a_diagnosis_is_readable(tmp_path: Path, cli: Any) -> None:
    (tmp_path / "gateway.toml").write_text('[server]\nlisten = "127.0.0.1:0"\n')
    main, other = pty.openpty()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("TIDEGATE", "OPENAI", "ANTHROPIC"))}
    env |= {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve"], env=env, cwd=tmp_path, stdin=other, stdout=other, stderr=other
    )
    os.close(other)
    os.set_blocking(main, False)
    shown = b""

    def text() -> str:
        nonlocal shown
        try:
            shown += os.read(main, 65536)
        except OSError:  # nothing at the moment, or the other side has closed
            pass
        return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r", "")

    try:
        until(lambda: "is ready" in text() and "shown once, now:" in text())
        (tmp_path / "gateway.toml").write_text(BAD)
        process.send_signal(signal.SIGHUP)
        until(lambda: "nothing was started or changed" in text())
        assert "\\n" not in text()
        assert re.search(r"^ +error: unknown key 'listn' in \[server\]$", text(), re.MULTILINE), text()
        assert re.search(r"^ +2 \| listn = ", text(), re.MULTILINE)
        process.terminate()
        until(lambda: "stopped" in text())
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        os.close(main)


def test_pages_have_ids_and_refuse_in_words(gateway: Any) -> None:
    for path in ("/", "/livez", "/readyz", "/health", "/metrics"):
        assert len(gateway.request("GET", path, key=None)[1]["x-request-id"]) == 36, path
    status, headers, body = gateway.request("GET", "/metrics", key=None)
    assert (status, json.loads(body)["request_id"]) == (401, headers["x-request-id"])
    status, headers, body = gateway.request("POST", "/livez", {}, key=None)
    page = json.loads(body)
    assert (status, page["code"], page["request_id"]) == (405, "method_not_allowed", headers["x-request-id"])
    assert headers["allow"] in ("GET, HEAD", "HEAD, GET")


def test_a_line_and_its_end_are_one_write_even_unbuffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are written to the same output by another thread: two writes would let a line of theirs in between."""
    writes: list[bytes] = []

    class Raw(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            writes.append(bytes(data))
            return len(data)

    before = structlog.get_config()
    level, handlers = logging.getLogger().level, logging.getLogger().handlers
    unbuffered: Any = Raw()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(unbuffered, write_through=True))
    try:
        logs.configure(json=True, level="info")
        structlog.get_logger().info("one", place="here")
    finally:
        structlog.configure(**before)
        logging.getLogger().setLevel(level)
        logging.getLogger().handlers = handlers
    assert len(writes) == 1
    assert writes[0].endswith(b"}\n")
