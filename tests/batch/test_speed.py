"""A thousand embeddings of one input each at concurrency 100: few requests, and several times the throughput."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson

CALLS, CONNECTIONS = 1_000, 100
CONFIG = """
[providers.fake]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
max_concurrent = 8
[models.small]
targets = ["fake/text-embedding-3-small"]
[clients.acme]
quota = {{ requests = ["1000000/minute"], tokens = ["100000000/minute"], concurrent = 600 }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
[policy.batch]
enabled = {enabled}
"""
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer tg-acme-secret-key\r\n"


async def drive(port: int) -> float:
    """Seconds for all calls, by raw sockets."""
    numbers = iter(range(CALLS))

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            body = orjson.dumps({"model": "small", "input": f"text {number}", "dimensions": 8})
            writer.write(HEAD + b"content-length: %d\r\ncontent-type: application/json\r\n\r\n%b" % (len(body), body))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            answer = orjson.loads(await reader.readexactly(length))
            assert len(answer["data"]) == 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*[connection() for _ in range(CONNECTIONS)])
    return time.perf_counter() - began


async def test_a_thousand_embeddings_make_few_requests_and_several_times_the_throughput(
    start: Any, start_demo_with: Any
) -> None:
    slow = start_demo_with("--latency-ms", "50", "--slots", "8", "--over", "queue")
    took, made = {}, {}
    for enabled in ("false", "true"):
        server = start(CONFIG.format(origin=slow.origin, enabled=enabled))
        before = slow.stats()["calls"]
        took[enabled] = await drive(server.port)
        made[enabled] = slow.stats()["calls"] - before
    print(f"alone {CALLS / took['false']:.0f}/s, batched {CALLS / took['true']:.0f}/s in {made['true']} requests")
    assert made["false"] == CALLS
    assert made["true"] <= 100
    assert took["false"] >= 3 * took["true"]
