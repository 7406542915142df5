"""The wall clock of a whole gateway jumps by an hour, forth and back: nothing is minted, and nobody is locked out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

CONFIG = """
[server]
data_dir = "{folder}/data"
log_level = "warning"
[providers.fake]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
pass_headers = ["x-fake"]
[models.metered]
targets = ["fake/demo-small"]
[prices.metered]
input = 0
output = 10
[clients.spent]
quota = {{ requests = ["1/day"] }}
[[clients.spent.keys]]
secret = "tg-the-key-of-spent"
[clients.hourly]
quota = {{ requests = ["1/hour"] }}
[[clients.hourly.keys]]
secret = "tg-the-key-of-hourly"
[clients.broke]
budget = {{ month_usd = 0.001, hard = true }}
[[clients.broke.keys]]
secret = "tg-the-key-of-broke"
[clients.brisk]
quota = {{ requests = ["1 per 2 seconds"] }}
[[clients.brisk.keys]]
secret = "tg-the-key-of-brisk"
[clients.rich]
[[clients.rich.keys]]
secret = "tg-the-key-of-rich1"
"""
BODY = {"model": "metered", "max_tokens": 100, "messages": [{"role": "user", "content": "Count to a hundred."}]}


@pytest.fixture
async def jumping(tmp_path: Path, demo: Any) -> AsyncIterator[tuple[str, Callable[[int], None]]]:
    """The address of a gateway, and what makes its wall clock jump by so many seconds from the true time."""
    config, offset = tmp_path / "gateway.toml", tmp_path / "offset"
    config.write_text(CONFIG.format(folder=tmp_path, origin=demo.origin))
    # Away from the end of a month, where an hour more is another budget.
    away = 7200 if time.gmtime(time.time() + 7200).tm_mon == time.gmtime(time.time() - 7200).tm_mon else -86_400
    offset.write_text(str(away if away < 0 else 0))
    base = int(offset.read_text())
    command = [sys.executable, str(Path(__file__).with_name("jumping.py")), str(config), str(offset)]
    env = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TIDEGATE_ADMIN_KEY": "tg-admin-of-test",
    }
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = await asyncio.to_thread(process.stdout.readline)

        def jump(seconds: int) -> None:
            fresh = tmp_path / "offset.new"
            fresh.write_text(str(base + seconds))
            fresh.rename(offset)

        yield f"http://127.0.0.1:{int(port)}", jump
        process.terminate()
        await asyncio.to_thread(process.wait, 15)


async def test_an_hour_mints_nothing_and_locks_no_one_out(jumping: tuple[str, Callable[[int], None]]) -> None:
    address, jump = jumping
    async with httpx2.AsyncClient(base_url=address, timeout=30, trust_env=False) as client:

        async def call(key: str) -> httpx2.Response:
            headers = {"authorization": f"Bearer tg-the-key-of-{key}", "x-fake": "chunks=100"}
            return await client.post("/v1/chat/completions", headers=headers, json=BODY)

        for key in ("spent", "hourly", "broke", "brisk"):
            assert (await call(key)).status_code == 200
        for seconds in (3600, -3600, 3600, 0):
            jump(seconds)
            for key in ("spent", "hourly", "broke"):
                assert (await call(key)).status_code == 429, (key, seconds)
            assert 0 < int((await call("hourly")).headers["retry-after"]) <= 3600
            assert (await call("rich1")).status_code == 200
            deadline = time.monotonic() + 20
            while (answer := await call("brisk")).status_code != 200:
                assert time.monotonic() < deadline
                assert int(answer.headers["retry-after"]) <= 2
                await asyncio.sleep(0.1)
