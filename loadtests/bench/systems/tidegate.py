"""Tidegate itself, with every policy of its default list on."""

from __future__ import annotations

import sys
from pathlib import Path

from loadtests.bench.errors import BenchError
from loadtests.bench.systems.base import System

KEY = "sk-bench-{:040d}"
CLIENT = """\
[clients.bench-{number}]
quota = {{ requests = ["{quota}/minute"], tokens = ["{quota}000/minute"] }}
[[clients.bench-{number}.keys]]
role = "client"
secret = "{key}"
"""
CONFIGURATION = """\
[server]
data_dir = "{data}"

[providers.bench]
kind = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
api_key = "sk-upstream"

[models."bench-*"]
targets = ["bench/*"]

"""
QUOTA = 100_000_000  # requests a minute: never the limit, but counted for each call


class Tidegate(System):
    name = "tidegate"
    what = "Tidegate, all policies on"
    ready_path = "/readyz"
    clients = 1

    def install(self) -> None:
        if not Path("gateway/__main__.py").exists():
            raise BenchError("gateway/__main__.py is not there yet")

    def configure(self) -> None:
        self._file.write_text(
            CONFIGURATION.format(data=(self.folder / "data").resolve(), upstream=self.upstream_port)
            + "\n".join(CLIENT.format(number=n, quota=QUOTA, key=KEY.format(n)) for n in range(self.clients))
        )

    @property
    def _file(self) -> Path:
        return self.folder / "gateway.toml"

    def keys(self) -> tuple[str, ...]:
        return tuple(KEY.format(number) for number in range(self.clients))

    def command(self) -> list[str]:
        address = f"127.0.0.1:{self.port}"
        return [sys.executable, "-m", "gateway", "serve", "--config", str(self._file.resolve()), "--listen", address]

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {KEY.format(0)}"}

    def settings(self) -> list[str]:
        return [f"a provider, a model, {self.clients} client(s) with a key and a quota of {QUOTA} requests a minute"]
