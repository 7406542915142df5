"""The command line: one line with the address, and a clean end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "gateway.demo"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([{"nth": 1, "fake": "status=503"}]))
    options = ["--log", str(tmp_path / "log"), "--plan", str(plan), "--slots", "3", "--model", "mine", "--seed", "9"]
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"fake provider at (http://127\.0\.0\.1:\d+)\n", line)
        assert found
        yield process, found[1]
        process.kill()


def fetch(url: str) -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends_on_a_signal(running: tuple[subprocess.Popen[str], str], number: int) -> None:
    process, address = running
    assert fetch(f"{address}/v1/models")[0] == 503  # the plan
    status, body = fetch(f"{address}/v1/models")
    assert (status, json.loads(body)["data"][0]["id"]) == (200, "mine")
    assert json.loads(fetch(f"{address}/fake/stats")[1])["slots"] == 3
    process.send_signal(number)
    assert process.wait(10) == 0


def test_it_starts_fast() -> None:
    """Well under a second when nothing else runs; a loaded machine has three, and tries."""
    for _ in range(5):
        begin = time.monotonic()
        with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            took = time.monotonic() - begin
            process.kill()
        if took < 3:
            break
    assert took < 3


@pytest.mark.parametrize("options", [["--slots", "0"], ["--plan", "/nonexistent"], ["--over", "maybe"], ["--what"]])
def test_wrong_arguments_end_with_2(options: list[str]) -> None:
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_it_imports_nothing_of_the_gateway() -> None:
    code = (
        "import sys, gateway.demo, gateway.demo.__main__\n"
        "found = [m for m in sys.modules if m.startswith('gateway.') and not m.startswith('gateway.demo')]\n"
        "heavy = [m for m in ('tiktoken', 'pydantic', 'httpx2', 'starlette') if m in sys.modules]\n"
        "print(found, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[] []\n"
