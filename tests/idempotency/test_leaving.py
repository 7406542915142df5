"""Who leaves while others wait: the last interested client cancels the execution (TERMS 10)."""

from __future__ import annotations

import asyncio
from typing import Any


async def test_the_first_client_leaves_and_the_others_get_the_result(site: Any) -> None:
    one = await site()
    first = asyncio.ensure_future(one.post(x_fake="latency-ms=2000"))
    await one.until(lambda: one.in_flight == 1)
    others = [asyncio.ensure_future(one.post()) for _ in range(3)]
    await waiting(one, 3)
    first.cancel()
    answers = await asyncio.gather(*others)
    assert {a.status_code for a in answers} == {200}
    assert one.executed == 1
    assert (await one.calls())[3]["outcome"] == "served"


async def test_the_last_of_all_cancels_it(site: Any) -> None:
    one = await site()
    calls = [asyncio.ensure_future(one.post(x_fake="latency-ms=20000"))]
    await one.until(lambda: one.in_flight == 1)
    calls += [asyncio.ensure_future(one.post()) for _ in range(2)]
    await waiting(one, 2)
    for call in calls[:2]:
        call.cancel()
    await asyncio.sleep(0.1)
    assert one.in_flight == 1
    calls[2].cancel()
    await one.until(lambda: one.in_flight == 0)
    again = await one.post()
    assert again.status_code == 200
    assert "idempotent-replayed" not in again.headers


async def test_alone_leaving_cancels_at_once(site: Any) -> None:
    one = await site()
    call = asyncio.ensure_future(one.post(x_fake="latency-ms=20000"))
    await one.until(lambda: one.in_flight == 1)
    call.cancel()
    await one.until(lambda: one.in_flight == 0)
    assert (await one.post()).status_code == 200


async def test_those_who_wait_may_leave(site: Any) -> None:
    one = await site()
    first = asyncio.ensure_future(one.post(x_fake="latency-ms=1500"))
    await one.until(lambda: one.in_flight == 1)
    other = asyncio.ensure_future(one.post())
    await waiting(one, 1)
    other.cancel()
    answer = await first
    assert answer.status_code == 200
    assert (await one.post()).content == answer.content
    assert one.executed == 1


async def waiting(one: Any, count: int) -> None:
    """Until so many calls wait for another's result."""
    line = f"tidegate_idempotency_waiting {count}.0"
    async with asyncio.timeout(10):
        while line not in (await one.http.get("/metrics", headers=admin(one))).text:
            await asyncio.sleep(0.02)


def admin(one: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {one.server.env['TIDEGATE_ADMIN_KEY']}", "accept": "text/plain"}
