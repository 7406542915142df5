"""A whole run in miniature, with nginx alone, and what its files and its exit code promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROMISED = {
    "cpu_us_per_request",
    "requests_per_s",
    "p50_ms",
    "p99_ms",
    "rss_mb",
    "cpu_us_per_chunk_paced",
    "cpu_us_per_chunk_burst",
}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build folder of a tiny run."""
    folder = tmp_path_factory.mktemp("build")
    command = [sys.executable, "-m", "loadtests.bench", "--tiny", "--systems", "nginx", "--build", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    (folder / "printed").write_text(done.stdout)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert (done.returncode == 0) is done.stdout.rstrip().splitlines()[-1].startswith("bench ok: ")
    return folder


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_short_file_has_the_promised_figures(build: Path) -> None:
    found = read(build / "bench.json")
    assert list(found) == ["nginx"]
    assert set(found["nginx"]) == PROMISED
    assert all(value is None or value > 0 for value in found["nginx"].values())
    assert found["nginx"]["cpu_us_per_request"] is not None


def test_full_file_has_spread_completeness_and_the_bare_responder(build: Path) -> None:
    found = read(build / "bench-full.json")
    case = found["systems"]["nginx"]["cases"]["1.2 KB c=32"]
    assert case["cpu_us"]["min"] <= case["cpu_us"]["median"] <= case["cpu_us"]["max"]
    assert case["completed"] > 0
    assert case["failed"] == 0
    paced = found["systems"]["nginx"]["cases"]["paced"]
    assert paced["completed"] > 0
    assert paced["failed"] == 0
    assert found["no_proxy"]["capacity"]["1.2 KB c=32"]["requests_per_s"]["median"] > 0
    assert {"paced", "burst"} <= set(found["no_proxy"]["direct"])
    assert all(proof["holds"] for proof in found["proofs"])


def test_settings_are_printed_and_the_last_line_sums_up(build: Path) -> None:
    printed = (build / "printed").read_text()
    assert "proxy_buffering off" in printed
    assert " goals met, " in printed.rstrip().splitlines()[-1]


def test_page_and_plot_are_made_of_the_results(build: Path, tmp_path: Path) -> None:
    folder, readme = tmp_path / "build", tmp_path / "README.md"
    folder.mkdir()
    for name in ("bench.json", "bench-full.json"):  # as if all three had been measured
        (folder / name).write_text((build / name).read_text())
    short = read(folder / "bench.json")
    (folder / "bench.json").write_text(json.dumps(dict.fromkeys(("tidegate", "nginx", "envoy"), short["nginx"])))
    readme.write_text((ROOT / "README.md").read_text())
    command = [sys.executable, "scripts/plot_bench.py", "--build", str(folder), "--docs", str(tmp_path)]
    subprocess.run([*command, "--readme", str(readme)], cwd=ROOT, check=True, timeout=30)
    assert "| envoy |" in readme.read_text()
    assert "1.0 times Envoy's" in readme.read_text()
    assert readme.read_text().count("## Commands") == 1
    page, plot = (tmp_path / "performance.md").read_text(), (tmp_path / "performance.svg").read_text()
    assert "| nginx |" in page
    assert "performance.svg" in page
    assert plot.startswith("<svg")
    assert ">nginx</text>" in plot


def test_nothing_is_left_running(build: Path) -> None:
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = status.read_bytes().decode(errors="replace")
        except OSError:
            continue
        assert str(build) not in command
