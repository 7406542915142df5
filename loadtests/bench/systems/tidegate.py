"""Tidegate itself, with every policy of its default list on."""

from __future__ import annotations

import sys
from pathlib import Path

from loadtests.bench.cases import ALL, TINY
from loadtests.bench.systems.base import System

ADMIN_KEY = "sk-bench-admin-00000000000000000000000000000000"
KEY = "sk-bench-{:040d}"
QUOTA = 1_000_000_000  # requests a minute, and a thousand times as many tokens: never lacking, but counted each call
INPUT_USD, OUTPUT_USD = 2.5, 10.0  # a million tokens
COST_USD = "0.00195"  # of the responder's plain answer: 300 tokens in, 120 out

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
PRICE = """\
[prices."{model}"]
input = {input}
output = {output}

"""
CLIENT = """\
[clients.bench-{number}]
quota = {{ requests = ["{quota}/minute"], tokens = ["{quota}000/minute"], concurrent = 10000 }}
budget = {{ day_usd = 1000000, month_usd = 1000000 }}
[[clients.bench-{number}.keys]]
secret = "{key}"
"""


class Tidegate(System):
    name = "tidegate"
    what = "Tidegate, every policy on"
    ready_path = "/readyz"
    clients = 1

    def install(self) -> None:
        """Runs from this source tree."""

    def configure(self) -> None:
        head = CONFIGURATION.format(data=(self.folder / "data").resolve(), upstream=self.upstream_port)
        models = sorted({case.model for case in (*ALL, *TINY.cases)})
        prices = (PRICE.format(model=model, input=INPUT_USD, output=OUTPUT_USD) for model in models)
        clients = (CLIENT.format(number=n, quota=QUOTA, key=KEY.format(n)) for n in range(self.clients))
        self.file.write_text("\n".join((head, *prices, *clients)))

    @property
    def file(self) -> Path:
        return self.folder.resolve() / "gateway.toml"

    def keys(self) -> tuple[str, ...]:
        """The clients' keys."""
        return tuple(KEY.format(number) for number in range(self.clients))

    def policies(self) -> tuple[str, ...]:
        """The default list, which the configuration leaves as it is."""
        from gateway.config.settings import Settings

        return tuple(Settings().policies)

    def program(self) -> list[str]:
        return [sys.executable, "-m", "gateway"]

    def command(self) -> list[str]:
        return [*self.program(), "serve", "--config", str(self.file), "--listen", f"127.0.0.1:{self.port}"]

    def environment(self) -> dict[str, str]:
        return {"TIDEGATE_ADMIN_KEY": ADMIN_KEY}

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {KEY.format(0)}"}

    def settings(self) -> list[str]:
        return [
            "defaults but for the provider, the models' names and prices",
            f"one client with a key, {QUOTA:,} requests and {QUOTA * 1000:,} tokens a minute, 10,000 calls at once,",
            "1,000,000 USD a day and a month: each limit is counted for every call and none refuses",
        ]
