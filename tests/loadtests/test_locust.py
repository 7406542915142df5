"""The locustfile as a load tester runs it: a process of its own, with and without its page."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCUST = [sys.executable, "-m", "locust", "-f"]
FILE, SHAPES = "loadtests/locustfile.py", "loadtests/shapes.py"
METRICS = {"POST", "TTFT", "TPOT", "E2E"}


@dataclass(frozen=True)
class Row:
    """One row of what locust reports."""

    requests: int
    failures: int
    mean_ms: float
    length: float


Rows = dict[tuple[str, str], Row]


@pytest.fixture
def provider() -> Iterator[str]:
    """The base URL of a fake provider whose streams are paced, so that a time a token is more than nothing."""
    command = [sys.executable, "-m", "gateway.demo", "--chunk-ms", "2", "--key", "sk-load"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.terminate()
        assert process.wait(10) == 0


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEGATE", "LOCUST", "OPENAI"))}
    return kept | {"TIDEGATE_CLIENT_KEY": "sk-load", "TIDEGATE_WORKER_PATH": "/worker/api/execute"}


def fetch(url: str, data: bytes | None = None) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, data, timeout=10) as answer:
        found: bytes = answer.read()
    return found


@pytest.fixture
def headless(tmp_path: Path) -> Callable[..., tuple[int, Rows, str]]:
    """Runs locust without its page; the exit code, the rows by type and name, and what it printed. Runs that were too
    short for a busy machine, so that a row is missing, are made again and last longer."""

    def run(files: str, host: str, *options: str, seconds: int, rows: set[tuple[str, str]]) -> tuple[int, Rows, str]:
        for lasts_s in (seconds, 5 * seconds, 15 * seconds):
            command = [*LOCUST, files, "--host", host, "--headless", "--only-summary", "-t", f"{lasts_s}s", *options]
            command += ["--json-file", str(tmp_path / "run"), "--csv", str(tmp_path / "run")]
            done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=90)
            found = read_rows(tmp_path / "run.json")
            if rows <= set(found) and all(row.requests > 2 for row in found.values()):
                break
        assert set(found) == rows, done.stdout + done.stderr
        return done.returncode, found, done.stdout + done.stderr

    return run


def read_rows(path: Path) -> Rows:
    return {
        (row["method"], row["name"]): Row(
            row["num_requests"],
            row["num_failures"],
            row["total_response_time"] / max(1, row["num_requests"]),
            row["total_content_length"] / max(1, row["num_requests"]),
        )
        for row in json.loads(path.read_text())
    }


def test_all_kinds_of_users_without_the_page(headless: Any, provider: str, tmp_path: Path) -> None:
    plain = {("POST", name) for name in ("chat", "embeddings", "worker", "messages")}
    streams = {(kind, name) for kind in METRICS for name in ("chat stream", "messages stream")}
    options = ("-u", "12", "-r", "12", "--think-ms", "50")
    code, rows, output = headless(FILE, f"{provider}/v1", *options, seconds=3, rows=plain | streams)
    assert code == 0, output
    assert all(row.requests > 0 and row.failures == 0 for row in rows.values())
    first, token, whole = (rows[kind, "chat stream"] for kind in ("TTFT", "TPOT", "E2E"))
    assert 1 < token.mean_ms < whole.mean_ms  # 2 ms apart
    assert first.mean_ms < whole.mean_ms
    assert whole.length == 24  # tokens
    with (tmp_path / "run_stats.csv").open() as lines:
        assert {row["Name"] for row in csv.DictReader(lines)} >= {"chat", "chat stream"}
    told = json.loads(fetch(f"{provider}/fake/stats"))
    assert (told["failures"], set(told["statuses"])) == (0, {"200"})


def test_a_stream_without_its_end_marker_is_a_failure(headless: Any, provider: str) -> None:
    """Every second stream ends after eight events, properly framed: only the missing marker tells."""
    fetch(f"{provider}/fake/plan", json.dumps([{"every": 2, "fake": "truncate=8"}]).encode())
    options = ("-u", "4", "-r", "4", "StreamUser", "AnthropicStreamUser")
    wanted = {(kind, name) for kind in METRICS for name in ("chat stream", "messages stream")}
    code, rows, _ = headless(FILE, provider, *options, seconds=2, rows=wanted)
    assert code == 1
    for name in ("chat stream", "messages stream"):
        asked = rows["POST", name]
        assert 0 < asked.failures < asked.requests
        assert rows["E2E", name].requests == asked.requests - asked.failures


@pytest.mark.parametrize("fault", ["die=after:5", "status=500", "html", "errorbody", "overloaded=after:3"])
def test_what_is_not_an_answer_is_a_failure(headless: Any, provider: str, fault: str) -> None:
    fetch(f"{provider}/fake/plan", json.dumps([{"fake": fault}]).encode())
    options = ("-u", "4", "-r", "4", "--think-ms", "50", "ChatUser", "StreamUser")
    wanted = {("POST", "chat"), ("POST", "chat stream")}
    code, rows, _ = headless(FILE, provider, *options, seconds=1, rows=wanted)
    assert code == 1
    assert all(row.failures == row.requests > 0 for row in rows.values())


def test_refusals_can_be_counted_instead(headless: Any, provider: str) -> None:
    fetch(f"{provider}/fake/plan", json.dumps([{"every": 2, "fake": "status=429"}]).encode())
    options = ("-u", "2", "-r", "2", "--count-refusals", "--think-ms", "10", "ChatUser")
    wanted = {("POST", "chat"), ("POST", "chat (429)")}
    code, _, output = headless(FILE, provider, *options, seconds=1, rows=wanted)
    assert code == 0, output


def test_a_shape_drives_users_of_several_tiers(headless: Any, provider: str) -> None:
    keys = ("--tier-keys", "basic=sk-load,premium=sk-load")
    options = ("--shape", "tiers", "-u", "8", "--think-ms", "20", *keys, "ChatUser")
    wanted = {("POST", "chat [basic]"), ("POST", "chat [premium]")}
    code, _, output = headless(f"{FILE},{SHAPES}", provider, *options, seconds=4, rows=wanted)
    assert code == 0, output
    assert "Shape test updating to 2 users" in output
    assert "Shape test updating to 8 users" in output
    assert "sk-load" not in output


def test_the_page_answers_and_starts_a_run(provider: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = f"http://127.0.0.1:{port}"
    command = [*LOCUST, FILE, "--host", provider, "--web-host", "127.0.0.1", "--web-port", str(port), "ChatUser"]
    secret = {"TIDEGATE_TIER_KEYS": "basic=sk-load"}
    with subprocess.Popen(command, cwd=ROOT, env=environment() | secret, stderr=subprocess.PIPE, text=True) as process:
        try:
            shown = wait_for(lambda: fetch(page + "/"))
            assert b"Locust" in shown
            assert b"sk-load" not in shown
            fetch(
                page + "/swarm", urllib.parse.urlencode({"user_count": 2, "spawn_rate": 2, "host": provider}).encode()
            )
            names = wait_for(
                lambda: {row["name"] for row in json.loads(fetch(page + "/stats/requests"))["stats"]} - {"Aggregated"}
            )
            assert names == {"chat [basic]"}
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=20)
    assert "Traceback" not in errors


def wait_for(ask: Callable[[], Any]) -> Any:
    """What `ask` gives, once it gives something; 15 seconds at most."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            if found := ask():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("nothing came")


SHAPE_CODE = """
import json, sys
from loadtests.shapes import SHAPES
shape = SHAPES[sys.argv[1]]()
print(json.dumps([shape.users_at(share * 100, 100, 100) for share in (0, 0.1, 0.3, 0.45, 0.6, 0.9, 0.999, 1)]))
"""


@pytest.mark.parametrize(
    ("shape", "users"),
    [
        ("spike", [10, 10, 100, 100, 10, 10, 10, None]),
        ("step", [20, 20, 40, 60, 80, 100, 100, None]),
        ("soak", [30, 100, 100, 100, 100, 100, 100, None]),
        ("tiers", [20, 20, 100, 100, 100, 20, 20, None]),
    ],
)
def test_shapes(shape: str, users: list[int | None]) -> None:
    """In a process of its own, since locust patches the standard library when it is imported."""
    command = [sys.executable, "-W", "ignore", "-c", SHAPE_CODE, shape]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == users


def test_a_malformed_list_of_keys_is_refused(provider: str) -> None:
    command = [*LOCUST, FILE, "--host", provider, "--headless", "-t", "1s", "--tier-keys", "sk-load"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "tier=key" in done.stdout + done.stderr
