"""What a scenario runs on: the fake provider and a gateway with the default gateway.toml, each in its own process."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.scenarios.load import Caller, Kind

ROOT = Path(__file__).parents[2]
SLOTS = 20
SERVICE_MS = 100
CAPACITY = SLOTS * 1000 / SERVICE_MS  # calls a second
#: Clients of each kind; what bounds them in a scenario is the provider, not their own quota.
CLIENTS = {"high": 3, "normal": 12, "low": 3}
KINDS = tuple(
    Kind(name, share, tuple(f"tg-scenario-{name}-{number}" for number in range(CLIENTS[name])), priority)
    for name, share, priority in (("high", 0.1, "high"), ("normal", 0.8, ""), ("low", 0.1, "low"))
)
READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Bed:
    """Two origins, and the gateway's process."""

    gateway: str
    provider: str
    pid: int = 0

    def cpu_s(self) -> tuple[float, float]:
        """Seconds in which the gateway ran, and in which it could have run but the machine was busy (Linux)."""
        try:
            ran, waited = Path(f"/proc/{self.pid}/schedstat").read_text().split()[:2]
        except OSError:
            return 0.0, 0.0
        return int(ran) / 1e9, int(waited) / 1e9

    async def stats(self, caller: Caller) -> dict[str, Any]:
        """The provider's counters."""
        _, _, body = await caller.request("GET", "/fake/stats")
        found: dict[str, Any] = json.loads(body)
        return found


def config(provider: str) -> str:
    """The default gateway.toml, with one provider, one model, and clients."""
    lines = [
        (ROOT / "gateway.toml").read_text(),
        f'[providers.fake]\nkind = "openai"\nbase_url = "{provider}/v1"\napi_key = "x"\nmax_concurrent = {SLOTS}',
        '[models.m]\ntargets = ["fake/demo-small"]',
    ]
    for kind in KINDS:
        tier = "enterprise" if kind.name == "high" else "standard"
        for number, key in enumerate(kind.keys):
            quota = "quota = { requests = [], concurrent = 1000 }"
            lines.append(f'[clients.{kind.name}-{number}]\ntier = "{tier}"\n{quota}')
            lines.append(f'[[clients.{kind.name}-{number}.keys]]\nsecret = "{key}"')
    return "\n".join(lines)


@asynccontextmanager
async def bed(log_level: str = "error") -> AsyncIterator[Bed]:
    """Starts both, and ends them."""
    with tempfile.TemporaryDirectory(prefix="tidegate-scenarios-") as name:
        folder = Path(name)
        provider, gateway = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        (folder / "gateway.toml").write_text(config(provider))
        fake = ["gateway.demo", "--slots", str(SLOTS), "--service-time-ms", str(SERVICE_MS), "--output-tokens", "5"]
        ours = ["gateway", "serve", "-c", str(folder / "gateway.toml"), "--data-dir", str(folder / "data")]
        processes = []
        try:
            processes.append(begin([*fake, "--port", provider.rpartition(":")[2]], folder))
            listen = ["--listen", gateway.removeprefix("http://"), "--log-level", log_level]
            processes.append(begin([*ours, *listen], folder))
            await ready(provider, "/fake/stats", processes, folder)
            await ready(gateway, "/readyz", processes, folder)
            yield Bed(gateway, provider, processes[1].pid)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                await asyncio.to_thread(process.wait, 40)


def begin(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Starts a module of ours; what it prints goes to the folder's output.txt."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEGATE", "OPENAI", "ANTHROP"))}
    keys = {"TIDEGATE_ADMIN_KEY": "tg-scenario-admin-key", "TIDEGATE_CLIENT_KEY": "tg-scenario-client-key"}
    env = {**kept, **keys, "PYTHONPATH": str(ROOT)}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen([sys.executable, "-m", *arguments], cwd=folder, env=env, stdout=output, stderr=output)


async def ready(origin: str, path: str, processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Waits for a page's 200. Raises RuntimeError with what was printed."""
    caller = Caller(origin)
    try:
        for _ in range(int(READY_S / 0.05)):
            if (await caller.request("GET", path))[0] == 200:
                return
            if any(process.poll() is not None for process in processes):
                break
            await asyncio.sleep(0.05)
        raise RuntimeError(f"{origin} did not become ready:\n{(folder / 'output.txt').read_text()[-2000:]}")
    finally:
        await caller.aclose()


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
