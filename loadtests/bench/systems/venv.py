"""Environments of their own for systems that come from a package index, so that none enters the project's lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from loadtests.bench.errors import BenchError


def environment(folder: Path, packages: list[str]) -> Path:
    """A virtual environment with `packages` in it (made once); its folder."""
    stamp = folder / ".packages"
    if stamp.exists() and stamp.read_text() == "\n".join(packages):
        return folder
    print(f"installing {', '.join(packages)} into {folder} (once)", flush=True)
    run([sys.executable, "-m", "venv", str(folder)])
    run([str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", *packages])
    stamp.write_text("\n".join(packages))
    return folder


def run(command: list[str], cwd: Path | None = None) -> None:
    """Runs an installer; BenchError with the end of its output when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
