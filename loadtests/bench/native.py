"""The two C programs, compiled into the build folder when their source is newer."""

from __future__ import annotations

import subprocess
from pathlib import Path

from loadtests.bench.errors import BenchError

SOURCES = Path(__file__).parent
FLAGS = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]


def compiled(name: str, into: Path) -> Path:
    """The path of the program made from `name`.c."""
    source, program = SOURCES / f"{name}.c", into / name
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    into.mkdir(parents=True, exist_ok=True)
    command = ["gcc", *FLAGS, "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stderr}")
    return program
