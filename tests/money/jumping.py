"""A gateway whose wall clock is off by as many seconds as a file says; prints its port."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import uvicorn

from gateway.app import Gateway
from gateway.clock import Clock
from gateway.config import load


class JumpingClock(Clock):
    def __init__(self, offset: Path) -> None:
        super().__init__()
        self.wall_ns = lambda: time.time_ns() + int(offset.read_text()) * 1_000_000_000


async def main(config: Path, offset: Path) -> None:
    gateway = Gateway(load(config, {}, os.environ), os.environ, JumpingClock(offset))
    await gateway.open()
    server = uvicorn.Server(
        uvicorn.Config(gateway, port=0, lifespan="off", log_config=None, access_log=False, ws="none")
    )
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving
    await gateway.aclose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
