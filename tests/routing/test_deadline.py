"""The client's own deadline: read, kept, passed on, and never exceeded by work that could not help any more."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from gateway.deadline import parse
from gateway.errors import BadRequest

WORKER = '[workers.w0]\nbase_url = "{f0}/worker"\n'


@pytest.mark.parametrize(
    ("text", "wall_ns"),
    [
        (b"1750000000", 1_750_000_000_000_000_000),
        (b"1750000000.5", 1_750_000_000_500_000_000),
        (b"1750000000123", 1_750_000_000_123_000_000),
        (b"2025-06-15T15:06:40Z", 1_750_000_000_000_000_000),
        (b" 2025-06-15T17:06:40.25+02:00 ", 1_750_000_000_250_000_000),
        (b"0", 0),
    ],
)
def test_moments(text: bytes, wall_ns: int) -> None:
    assert parse(text) == wall_ns


@pytest.mark.parametrize(
    "text",
    [b"", b"soon", b"-5", b"1e9", b"nan", b"2025-06-15T15:06:40", b"2025-06-15", b"9" * 40, b"9" * 30, b"1.2.3",
     b"\xff", b"1750000000.", b"+1750000000", "\u0661".encode()],
)  # fmt: skip
def test_nonsense_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequest, match="x-tidegate-deadline"):
        parse(text)


def at(seconds: float) -> dict[str, str]:
    return {"x-tidegate-deadline": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()}


async def test_work_whose_deadline_has_passed_is_never_sent(stand: Any) -> None:
    one = await stand()
    for headers in (at(-0.001), at(-86400), {"x-tidegate-deadline": "1"}):
        answer = await one.chat(headers=headers)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "deadline_exceeded"
        assert answer.headers["x-should-retry"] == "false"
    answer = await one.chat(headers={"x-tidegate-deadline": "tomorrow"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-tidegate-deadline")
    assert one.fakes[0].stats.calls == 0
    assert {row.attempts for row in (await one.rows()).values()} == {0}  # nothing was even about to be sent
    assert (await one.chat(headers=at(30))).status_code == 200


@pytest.mark.parametrize("fake", ["halfopen", "latency-ms=3000", "stall=body"])
async def test_time_outs_upstream_are_cut_to_it(stand: Any, fake: str) -> None:
    one = await stand()
    began = time.monotonic()
    answer = await one.chat(fake, headers=at(0.4))
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert 0.3 <= time.monotonic() - began < 3
    assert one.fakes[0].stats.calls == 1  # and nothing is tried again
    rows = await one.attempts(answer.headers["x-request-id"])
    assert [row.error for row in rows] == ["deadline_exceeded"]
    states = {row["model"]: row["failures"] for row in one.gateway.routing.snapshot()}
    assert set(states.values()) == {0}  # the client's hurry is not the provider's fault


async def test_a_stream_ends_at_its_deadline_with_an_error(stand: Any) -> None:
    one = await stand()
    answer = await one.chat("chunk-ms=200; chunks=50", stream=True, max_tokens=50, headers=at(0.7))
    assert answer.status_code == 200
    assert '"deadline_exceeded"' in answer.text


async def test_no_pause_goes_beyond_it(stand: Any) -> None:
    one = await stand()
    one.fakes[0].set_plan([{"nth": 1, "fake": "status=429; retry-after=3"}])
    began = time.monotonic()
    answer = await one.chat(headers=at(2))
    assert answer.status_code == 429
    assert time.monotonic() - began < 1.5


async def test_workers_are_told(stand: Any) -> None:
    one = await stand(WORKER)
    two_hours = timezone(timedelta(hours=2))
    moment = datetime.now(two_hours) + timedelta(seconds=20)
    for _ in range(2):  # the second call on the same connection has less time left
        await one.client.get("/workers/w0/x", headers={"x-tidegate-deadline": moment.isoformat()})
        await asyncio.sleep(0.05)
    told = [dict(request.headers) for request in one.fakes[0].requests]
    moments = [datetime.fromisoformat(headers[b"x-tidegate-deadline"].decode()) for headers in told]
    left = [int(headers[b"x-tidegate-deadline-ms"]) for headers in told]
    assert all(abs((one - moment).total_seconds()) < 0.01 for one in moments)
    assert 15_000 < left[1] < left[0] - 40 <= 20_000
    await one.client.get("/workers/w0/x")
    assert b"x-tidegate-deadline" not in dict(one.fakes[0].requests[-1].headers)
    await one.chat(headers=at(20))
    assert b"x-tidegate-deadline" not in dict(one.fakes[0].requests[-1].headers)


ONE_AT_A_TIME = """
[clients.slow]
quota = { requests = ["1000/minute"], concurrent = 1 }
[[clients.slow.keys]]
secret = "tg-slow-secret-key"
"""


async def begun(one: Any, *, headers: dict[str, str], **more: Any) -> asyncio.Task[Any]:
    """A call that takes 1.5 s, on its way."""
    call = asyncio.ensure_future(one.chat("latency-ms=1500", temperature=0, headers=headers, **more))
    async with asyncio.timeout(5):
        while not one.fakes[0].stats.in_flight:
            await asyncio.sleep(0.005)
    return call


async def test_a_call_that_queues_is_told_of_its_deadline(stand: Any) -> None:
    one = await stand(ONE_AT_A_TIME)
    slow = {"authorization": "Bearer tg-slow-secret-key"}
    first = await begun(one, headers=slow)
    answer = await one.chat(headers=slow | at(0.4))
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert answer.headers["x-should-retry"] == "false"
    assert not first.done()
    assert (await first).status_code == 200
    assert one.fakes[0].stats.calls == 1


@pytest.mark.parametrize("by", ["its idempotency key", "the cache"])
async def test_who_waits_for_anothers_answer_waits_no_longer(stand: Any, by: str) -> None:
    one = await stand()
    headers = {"idempotency-key": "same"} if by == "its idempotency key" else {}
    first = await begun(one, headers=headers)
    answer = await one.chat("latency-ms=1500", temperature=0, headers=headers | at(0.4))
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert not first.done()
    assert (await first).status_code == 200  # which nobody cancelled
    assert one.fakes[0].stats.calls == 1


@pytest.mark.parametrize("by", ["its idempotency key", "the cache"])
async def test_so_does_who_says_it_in_metadata(stand: Any, by: str) -> None:
    """The first one has the same body, and says in its header, which counts first, that it has more time."""
    one = await stand()
    headers = {"idempotency-key": "same"} if by == "its idempotency key" else {}
    said = {"metadata": {"tidegate_deadline": at(0.8)["x-tidegate-deadline"]}}
    first = await begun(one, headers=headers | at(20), **said)
    answer = await one.chat("latency-ms=1500", temperature=0, headers=headers, **said)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert not first.done()
    assert (await first).status_code == 200
    assert one.fakes[0].stats.calls == 1
