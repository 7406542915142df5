"""Runs commands of the command line, each in a fork of this process, which has loaded them all: a test that gives
twenty does not wait for twenty interpreters to start. A line of JSON for each comes in, its exit code goes out.

What a process of its own does differently (the start, what is loaded for which command) is tested with one."""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import gateway
import gateway.__main__ as cli
import policies
from gateway.config import load

LONGEST_S = 60


def become(asked: dict[str, Any]) -> None:
    """What `python -m gateway ...` finds around it."""
    signal.alarm(LONGEST_S)
    for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
        fd = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY)
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.path[:1] = [asked["cwd"], *filter(None, asked["env"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [str(cli.__file__), *asked["arguments"]]
    sys.modules["__main__"] = cli
    random.seed()


def main() -> None:
    for package in (gateway, policies):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    with tempfile.NamedTemporaryFile() as nothing:
        load(Path(nothing.name), {}, {})  # makes what checks the policies' settings
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(json.loads(line))
            cli.main()
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
