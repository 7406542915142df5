"""`tidegate usage` after real calls: every unit, every refused call, readable on a narrow terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest

CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]}
KEY = "tg-0123456789abcdef"
CONFIG = f"""
[clients.acme]
models = ["demo-small", "nope"]
[[clients.acme.keys]]
secret = "{KEY}"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, start_module: Any) -> Any:
    server = start_module(tmp_path_factory.mktemp("usage"), CONFIG)
    calls = [
        ("/v1/chat/completions", CHAT, 200),
        ("/v1/chat/completions", {**CHAT, "model": "demo-large"}, 403),
        ("/v1/chat/completions", {**CHAT, "model": "nope"}, 404),
        ("/v1/images/generations", {"model": "demo-small", "prompt": "x", "n": 2, "size": "1024x1024"}, 200),
        ("/v1/audio/speech", {"model": "demo-small", "input": "hello", "voice": "alloy"}, 200),
        ("/workers/demo/api/execute", {"action": "x"}, 200),
    ]
    for path, body, status in calls:
        assert server.request("POST", path, body, key=KEY)[0] == status
    return server


def on_terminal(server: Any, columns: int, *arguments: str) -> list[str]:
    """What stands on a terminal of that width, without its colours."""
    main, other = pty.openpty()
    env = {**server.env, "COLUMNS": str(columns), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        env=env, cwd=server.folder, stdin=other, stdout=other, stderr=other,
    )  # fmt: skip
    os.close(other)
    shown = b""
    while True:
        try:
            some = os.read(main, 65536)
        except OSError:  # all of it was read and the other side is closed
            break
        if not some:
            break
        shown += some
    os.close(main)
    assert process.wait(30) == 0, shown
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r", "").splitlines()


def test_every_unit_is_in_the_sums(server: Any) -> None:
    rows = {row["route"]: row for row in server.tidegate("usage", "--by", "route", "--json")}
    assert rows["images"]["units"]["images"] == 2
    assert rows["audio"]["units"] == {"characters": 5}
    assert rows["worker"]["units"]["requests"] == 1
    assert rows["chat"]["units"] == {}
    assert rows["worker"]["unpriced"] == 1
    (whole,) = server.tidegate("usage", "--by", "client", "--json")
    assert (whole["units"]["images"], whole["units"]["characters"]) == (2, 5)
    text = server.command("usage", "--by", "route").stdout
    assert "images 2" in text
    assert "characters 5" in text
    assert {"estimated", "unpriced"} & set(text.splitlines()[0].split())
    table = list(csv.DictReader(io.StringIO(server.command("usage", "--by", "route", "--csv").stdout)))
    assert json.loads(next(row["units"] for row in table if row["route"] == "audio")) == {"characters": 5}


def test_a_refused_call_keeps_its_model(server: Any) -> None:
    calls = {row["status"]: row for row in server.calls()}
    assert [calls[status]["model"] for status in (403, 404)] == ["demo-large", "nope"]
    refused = {row["model"]: row["refused"] for row in server.tidegate("usage", "--by", "model", "--json")}
    assert refused["demo-large"] == 1
    logged = [json.loads(line) for line in server.output.splitlines() if line.startswith('{"event":"call"')]
    assert {line["model"] for line in logged if line["status"] in (403, 404)} == {"demo-large", "nope"}


def test_one_call_is_shown_line_by_line(server: Any) -> None:
    calls = {row["route"] if row["status"] == 200 else row["status"]: row["id"] for row in server.calls()}
    served = on_terminal(server, 80, "usage", "--call", calls["images"])
    assert max(map(len, served)) <= 80
    assert [line for line in served if line.startswith("Attempt 1")]
    assert any(re.fullmatch(r"  units: images +2", line) for line in served)
    refused = on_terminal(server, 80, "usage", "--call", calls[403])
    assert any(re.fullmatch(r"  error +model_not_allowed", line) for line in refused)
    assert any(re.fullmatch(r"  policy +access", line) for line in refused)
    assert refused[-1] == "It never reached a provider: no attempts."
    done = server.command("usage", "--call", "01a20f8b-0000-7000-8000-000000000000")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no call '01a20f8b" in done.stderr


def test_tables_fit_on_a_terminal(server: Any) -> None:
    for columns in (80, 120):
        for arguments in (("usage",), ("usage", "--calls"), ("clients", "list"), ("keys", "list")):
            lines = on_terminal(server, columns, *arguments)
            told = [line for line in lines if not line.startswith("(")]
            assert max(map(len, told)) <= columns, (columns, arguments)
    assert "cost usd" in on_terminal(server, 80, "usage")[0]
