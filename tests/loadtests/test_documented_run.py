"""docs/loadtests.md, as it stands, against a gateway as it comes: nothing is refused."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def commands() -> list[list[str]]:
    """The lines of the first block that are commands of ours or of locust, without their comments."""
    page = (ROOT / "docs/loadtests.md").read_text()
    block = re.search(r"(?:^    .*\n)+", page, re.MULTILINE)
    assert block is not None
    lines = (shlex.split(line, comments=True) for line in block[0].splitlines())
    return [line for line in lines if line[0] in ("tidegate", "locust")]


def test_the_documented_run_passes_on_a_default_gateway(start: Any, tmp_path: Path) -> None:
    server = start()
    key = ""
    for line in commands():
        if line[0] == "tidegate":
            done = server.command(*line[1:])
            assert done.returncode == 0, done.stderr
            key = done.stdout.splitlines()[-1]
            continue
        if "--headless" not in line:
            continue
        host = line.index("--host")
        options = [option for option in line[host + 2 :] if not option.endswith("User")]
        for name, value in (("-t", "4s"), ("-u", "20"), ("-r", "20"), ("--csv", str(tmp_path / "out"))):
            options[options.index(name) + 1] = value
        done = subprocess.run(
            [sys.executable, "-m", "locust", *line[1:host], "--host", server.address, *options, "--only-summary"],
            env={**server.env, "TIDEGATE_CLIENT_KEY": key}, cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = server.tidegate("usage", "--by", "route", "--only", "client=load", "--json")
    assert sum(row["calls"] for row in rows) > 20
    (load,) = [one for one in server.tidegate("clients", "list", "--json") if one["id"] == "load"]
    assert load["quota"]["requests"] == [], "a slow machine does not reach the 600 a minute that are the default"
    assert [row for row in rows if row["refused"] or row["failed"]] == []
