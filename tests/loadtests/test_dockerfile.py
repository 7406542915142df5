"""The Dockerfile is clean by its linter and says what it must; the build context holds what it copies and no more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LINTER = Path(sys.executable).parent / "hadolint"


def instructions(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(None, 1)[1].strip() for line in joined.splitlines() if line.startswith(f"{name} ")]


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([LINTER, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("", 0)


def test_it_says_what_it_must() -> None:
    assert [line.split()[0] for line in instructions("FROM")] == ["python:3.11-slim"] * 2
    assert any("--require-hashes -r requirements/run.lock" in line for line in instructions("RUN"))
    (user,) = instructions("USER")
    assert not user.startswith(("root", "0"))
    assert instructions("EXPOSE") == ["8080"]
    assert instructions("VOLUME") == ["/data"]
    (check,) = instructions("HEALTHCHECK")
    assert "python" in check
    assert "/livez" in check
    (entry,) = instructions("ENTRYPOINT")
    assert re.sub(r"[\[\]\",]", "", entry).startswith("tidegate serve --listen 0.0.0.0:8080")


def test_the_context_has_what_is_copied() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [line.split()[:-1] for line in instructions("COPY") if not line.startswith("--from")]
    sources = [source for line in copied for source in line]
    assert sorted(sources) == sorted(kept)
    assert all((ROOT / source).exists() for source in sources)
