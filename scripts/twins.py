"""Applies each recorded mutation in tests/twins/*.toml to a copy of the tree and expects its test to go red.

    python scripts/twins.py [NAME ...]      only twins files with these names

A twin whose test stays green means that a guarantee is no longer watched. Writes build/twins.json.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("gateway", "policies", "tests", "loadtests", "scripts", "requirements", "docs", "examples")
FILES = ("pyproject.toml", "gateway.toml", "README.md", "Dockerfile", ".dockerignore", "Makefile", "CHANGELOG.md")


def main() -> int:
    wanted = set(sys.argv[1:])
    results = []
    for path in sorted((ROOT / "tests" / "twins").glob("*.toml")):
        if wanted and path.stem not in wanted:
            continue
        for twin in tomllib.loads(path.read_text())["twin"]:
            results.append(judge(path.stem, twin))
            print(results[-1]["verdict"].ljust(12), path.stem.ljust(12), twin["guarantee"], flush=True)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "twins.json").write_text(json.dumps(results, indent=1))
    red = sum(result["verdict"] == "red" for result in results)
    print(f"twins: {red} of {len(results)} mutations were caught")
    return 0 if results and red == len(results) else 1


def judge(group: str, twin: dict[str, str]) -> dict[str, object]:
    """Red: the test fails under the mutation, as it should."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            if (ROOT / name).exists():
                shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, tree / name)
        file = tree / twin["file"]
        source = file.read_text()
        if source.count(twin["find"]) != 1:
            verdict = "stale"  # the source moved on without its twin
        else:
            file.write_text(source.replace(twin["find"], twin["replace"]))
            verdict = "red" if fails(tree, twin["test"]) else "STAYED GREEN"
    return {
        "group": group,
        "guarantee": twin["guarantee"],
        "test": twin["test"],
        "verdict": verdict,
        "seconds": round(time.monotonic() - began, 1),
    }


def fails(tree: Path, test: str) -> bool:
    """Whether the test goes red: failing assertions or errors, not a test that pytest could not find."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(tree), "HOME": str(tree)}
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=300)
    if done.returncode not in (0, 1):
        print(done.stdout[-2000:], done.stderr[-2000:])
        raise SystemExit(f"twins: {test} could not be run")
    return done.returncode == 1


if __name__ == "__main__":
    sys.exit(main())
