"""One call by the real curl, and what came back."""

from __future__ import annotations

import json
import subprocess

from loadtests.bench import requests
from loadtests.bench.systems.base import System


class Answer:
    """Status line, headers (names in small letters) and body."""

    def __init__(self, text: str) -> None:
        head, _, self.body = text.replace("\r\n", "\n").partition("\n\n")
        self.status, *lines = head.splitlines() or [""]
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def whole(self) -> bool:
        """Whether it is the responder's completion."""
        try:
            return " 200" in self.status and json.loads(self.body)["usage"]["total_tokens"] == 420
        except (ValueError, KeyError, TypeError):
            return False

    @property
    def seen(self) -> str:
        return f"{self.status}, {len(self.body)} bytes"


def curl(system: System) -> Answer:
    """A plain completion through `system`."""
    request = requests.chat("bench-plain", requests.SMALL, system.headers())
    command = ["curl", "-sS", "-i", "--max-time", "30", "--noproxy", "*"]
    for name, value in request.headers.items():
        if name != "Accept-Encoding":
            command += ["-H", f"{name}: {value}"]
    command += ["--data-binary", "@-", f"http://127.0.0.1:{system.port}{requests.PATH}"]
    done = subprocess.run(command, input=request.body, capture_output=True, check=False)
    return Answer(done.stdout.decode() or done.stderr.decode())
