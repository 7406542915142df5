"""The server itself: its plan, log, counters, slots, cancellations, its own paths, and no life after the stop."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.demo import DemoServer, DemoSettings, start

Ask = Callable[..., Awaitable[Any]]
Call = Callable[..., dict[str, Any]]
Run = Callable[..., Awaitable[DemoServer]]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def until(holds: Callable[[], bool]) -> None:
    """Waits for the loop to get there; ten seconds at most."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def hold(server: DemoServer, call: Call, fault: str = "halfopen", **more: Any) -> asyncio.StreamWriter:
    """A call in flight: sent, and never answered to its end."""
    _, writer = await asyncio.open_connection(server.host, server.port)
    body = json.dumps(call(**more)).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nx-tidegate-attempt: a-7\r\nx-nonce: n-7\r\n")
    writer.write(f"x-fake: {fault}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    before = server.stats.calls
    await until(lambda: server.stats.calls > before)
    return writer


async def shut(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def test_log_has_one_line_an_attempt_before_its_answer(run: Run, call: Call, tmp_path: Path) -> None:
    """A call that is never answered is in the log: what was recorded did not wait for the answer."""
    log = tmp_path / "log.jsonl"
    server = await run(log=log)
    writer = await hold(server, call, "latency-ms=60000; cached=2; reasoning=5")
    (line,) = lines(log)
    assert line["event"] == "attempt"
    assert (line["in"], line["cached"], line["out"], line["reasoning"]) == (12, 2, 29, 5)
    assert (line["attempt"], line["nonce"], line["model"], line["route"]) == ("a-7", "n-7", "demo-small", "chat")
    assert (line["stream"], line["status"], line["path"]) == (False, 200, "/v1/chat/completions")
    await shut(writer)
    await until(lambda: server.stats.cancelled_calls == 1)
    attempt, cut = lines(log)
    assert (cut["event"], cut["id"], cut["why"], cut["events"]) == ("cut", attempt["id"], "cancelled", 0)


async def test_log_and_answer_name_the_same_request(run: Run, raw: Ask, call: Call, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    server = await run(log=log, seed=7)
    answers = [await raw(server, call(), fault) for fault in ("", "status=500", "errorbody")]
    found = lines(log)
    assert [line["id"] for line in found] == [answer.headers["x-request-id"] for answer in answers]
    assert [line["status"] for line in found] == [200, 500, 200]
    assert [line["out"] for line in found] == [24, 0, 0]
    assert found[0]["id"] == f"req_{7:08x}{1:024x}"


async def test_log_tells_how_much_of_a_cut_stream_went_out(run: Run, raw: Ask, call: Call, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    server = await run(log=log)
    await raw(server, call(stream=True), "die=after:6")
    attempt, cut = lines(log)
    assert (attempt["out"], cut["why"], cut["events"], cut["out"]) == (24, "die", 6, 5)  # the first has no token


async def test_log_is_appended_to(run: Run, raw: Ask, call: Call, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for _ in range(2):
        server = await run(log=log)
        await raw(server, call())
    ids = [line["id"] for line in lines(log)]
    assert len(set(ids)) == 2


async def test_cancelled_calls_are_seen_at_once(fake: DemoServer, call: Call) -> None:
    writer = await hold(fake, call, "chunks=1000; chunk-ms=20", stream=True)
    assert fake.stats.in_flight == 1
    await shut(writer)
    await until(lambda: fake.stats.cancelled_calls == 1)
    (seen,) = fake.stats.cancelled
    assert (seen.attempt, seen.nonce, seen.route) == ("a-7", "n-7", "chat")
    assert 0 <= seen.after_ms < 2_000
    assert fake.stats.in_flight == 0


async def test_stats_count(fake: DemoServer, raw: Ask, call: Call) -> None:
    await raw(fake, call())
    await raw(fake, call(), "status=429")
    await raw(fake, {"model": "m", "input": "abcd"}, path="/v1/embeddings")
    told = (await raw(fake, b"", path="/fake/stats", method="GET")).json
    assert (told["calls"], told["in_flight"], told["max_in_flight"]) == (3, 0, 1)
    assert told["routes"] == {"chat": 2, "embeddings": 1}
    assert told["statuses"] == {"200": 2, "429": 1}
    assert (told["input_tokens"], told["output_tokens"]) == (13, 24)
    assert (await raw(fake, b"", path="/fake/reset")).status == 200
    assert fake.stats.calls == 0


async def test_most_in_flight_is_remembered(fake: DemoServer, call: Call) -> None:
    writers = [await hold(fake, call) for _ in range(5)]
    assert fake.stats.max_in_flight == fake.stats.in_flight == 5
    for writer in writers:
        await shut(writer)
    await until(lambda: fake.stats.in_flight == 0)
    assert fake.stats.max_in_flight == 5


async def test_requests_are_shown_as_they_came(fake: DemoServer, raw: Ask, call: Call) -> None:
    await raw(fake, call(odd=[1]), path="/v1/chat/completions?a=%2f", headers="X-Odd: Value\r\nconnection: close\r\n")
    (seen,) = (await raw(fake, b"", path="/fake/requests", method="GET")).json["requests"]
    assert (seen["method"], seen["target"]) == ("POST", "/v1/chat/completions?a=%2f")
    assert ["x-odd", "Value"] in seen["headers"]
    assert json.loads(seen["body"])["odd"] == [1]
    assert fake.requests[0].parameter("a") == "/"


async def test_an_over_admission_is_served_and_recorded(run: Run, raw: Ask, call: Call) -> None:
    server = await run(slots=2)
    writers = [await hold(server, call) for _ in range(2)]
    assert server.stats.over_admissions == 0
    assert (await raw(server, call())).status == 200
    assert server.stats.over_admissions == 1
    for writer in writers:
        await shut(writer)
    await until(lambda: server.stats.in_flight == 0)
    assert (await raw(server, call())).status == 200
    assert server.stats.over_admissions == 1


async def test_an_over_admission_is_refused_where_set(run: Run, raw: Ask, call: Call) -> None:
    server = await run(slots=1, over="refuse")
    writer = await hold(server, call)
    assert (await raw(server, call())).status == 429
    assert (await raw(server, b"", path="/v1/models", method="GET")).status == 200  # takes no slot
    await shut(writer)
    assert server.stats.over_admissions == 1


async def test_a_slot_whose_holder_hung_up_is_free_at_once(run: Run, raw: Ask, call: Call) -> None:
    """The new call may be read before the old one's end is: that is no over-admission."""
    server = await run(slots=1)
    writer = await hold(server, call)
    sock = writer.get_extra_info("socket")
    other = socket.create_connection((server.host, server.port))
    body = json.dumps(call()).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nx-fake: halfopen\r\ncontent-length: %d\r\n\r\n" % len(body)
    await until(lambda: server.stats.open_connections == 2)
    sock.shutdown(socket.SHUT_WR)
    other.sendall(head + body)  # both arrive in one turn of the loop
    await until(lambda: server.stats.calls == 2)
    assert server.stats.over_admissions == 0
    other.close()
    await shut(writer)


async def test_over_admissions_wait_their_turn_where_set(run: Run, raw: Ask, call: Call) -> None:
    server = await run(slots=2, over="queue", service_time_ms=50)
    answers = await asyncio.gather(*(raw(server, call(), wait_s=5) for _ in range(6)))
    assert [answer.status for answer in answers] == [200] * 6
    assert server.stats.over_admissions == 4
    assert server.provider.slots is not None
    assert server.provider.slots.held == 0


async def test_a_waiter_that_leaves_gets_no_slot(run: Run, raw: Ask, call: Call) -> None:
    server = await run(slots=1, over="queue")
    holder, waiter = await hold(server, call), await hold(server, call)
    await shut(waiter)
    await until(lambda: server.stats.in_flight == 1)
    await shut(holder)
    assert (await raw(server, call(), wait_s=2)).status == 200
    assert server.provider.slots is not None
    assert server.provider.slots.held == 0


async def test_service_time_bounds_the_throughput(run: Run, raw: Ask, call: Call) -> None:
    server = await run(slots=1, over="queue", service_time_ms=60)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await asyncio.gather(*(raw(server, call(), wait_s=5) for _ in range(3)))
    assert loop.time() - begin >= 0.18


async def test_plan_over_http(fake: DemoServer, raw: Ask, call: Call) -> None:
    rules = {"rules": [{"model": "demo-*", "nth": [1, 3], "fake": "status=503"}]}
    assert (await raw(fake, rules, path="/fake/plan")).status == 200
    assert [(await raw(fake, call())).status for _ in range(4)] == [503, 200, 503, 200]
    assert (await raw(fake, call(model="other"))).status == 200
    told = (await raw(fake, b"", path="/fake/plan", method="GET")).json["rules"]
    assert (told[0]["met"], told[0]["used"]) == (4, 2)
    bad = await raw(fake, [{"fake": "stats=1"}], path="/fake/plan")
    assert bad.status == 400
    assert (await raw(fake, b"", path="/fake/plan", method="GET")).json["rules"]  # the old one stays
    assert (await raw(fake, b"{", path="/fake/plan")).status == 400
    assert (await raw(fake, [], path="/fake/plan")).status == 200
    assert (await raw(fake, b"", path="/fake/nothing")).status == 404


async def test_plan_by_key_and_the_header_wins(fake: DemoServer, raw: Ask, call: Call) -> None:
    fake.set_plan([{"key": "-two", "fake": {"status": 429}}])
    one, two = (f"authorization: Bearer sk-{name}\r\nconnection: close\r\n" for name in ("one", "two"))
    assert (await raw(fake, call(), headers=one)).status == 200
    assert (await raw(fake, call(), headers=two)).status == 429
    assert (await raw(fake, call(), "status=500", headers=two)).status == 500


@pytest.mark.parametrize(("fault", "end"), [("reset", "reset"), ("halfopen", "open"), ("garbage", "fin")])
async def test_plan_on_connect(fake: DemoServer, raw: Ask, call: Call, fault: str, end: str) -> None:
    fake.set_plan([{"on": "connect", "nth": 1, "fake": fault}])
    answer = await raw(fake, call(), wait_s=0.2)
    assert answer.end in (end, "reset")  # what was sent into a closed socket may turn its end into a reset
    assert not answer.data.startswith(b"HTTP/1.1 200")
    assert (await raw(fake, call())).status == 200


async def test_drop_ends_idle_connections(fake: DemoServer, raw: Ask) -> None:
    reader, writer = await asyncio.open_connection(fake.host, fake.port)
    await until(lambda: fake.stats.open_connections == 1)
    assert (await raw(fake, b"", path="/fake/drop")).json == {"dropped": 1}
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_pipelined_requests_are_answered_in_order(fake: DemoServer, send: Ask, call: Call) -> None:
    sent = b""
    for number, fault in enumerate(("latency-ms=50", "chunks=1", "slice=50")):
        body = json.dumps(call(metadata={"x-nonce": str(number)})).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nx-fake: {fault}\r\ncontent-length: {len(body)}\r\n\r\n"
        sent += head.encode() + body
    answer = await send(fake, sent, 0.3)
    at = [answer.data.index(b"x-nonce: %d" % number) for number in range(3)]
    assert at == sorted(at)


async def test_bytes_that_are_not_http_are_refused(fake: DemoServer, send: Ask) -> None:
    answer = await send(fake, b"\x00\x01\x02\r\n\r\n")
    assert answer.status == 400
    assert fake.stats.bad_requests == 1


async def test_http10_and_head_and_continue(fake: DemoServer, send: Ask, call: Call) -> None:
    body = json.dumps(call(stream=True)).encode()
    old = await send(fake, b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    assert old.end == "fin"
    assert old.body.endswith(b"data: [DONE]\n\n")
    head = await send(fake, b"HEAD /worker/x HTTP/1.1\r\nconnection: close\r\n\r\n")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    expecting = b"POST /v1/x HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
    assert (await send(fake, expecting)).data.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_chunked_requests_are_read(fake: DemoServer, send: Ask, call: Call) -> None:
    body = json.dumps(call()).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    answer = await send(fake, head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert answer.json["model"] == "demo-small"


async def test_an_unfinished_request_is_no_attempt(fake: DemoServer) -> None:
    _, writer = await asyncio.open_connection(fake.host, fake.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 1000\r\n\r\nhalf")
    await until(lambda: fake.stats.open_connections == 1)
    await shut(writer)
    await until(lambda: fake.stats.open_connections == 0)
    assert (fake.stats.calls, fake.stats.aborted_requests) == (0, 1)


async def test_bad_json_and_forms(fake: DemoServer, raw: Ask) -> None:
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
        assert (await raw(fake, b"{", path=path)).status == 400
        assert (await raw(fake, b"[]", path=path)).status == 400
    assert (await raw(fake, b"x", path="/v1/files")).status == 400
    form = "content-type: multipart/form-data; boundary=b\r\nconnection: close\r\n"
    for body in (b"--b\r\n\r\nx", b"--b\r\nx: y\r\n\r\nz\r\n--b--\r\n", b'--b\r\nx; name="a"\r\n\r\nz\r\n--b--\r\n'):
        assert (await raw(fake, body, path="/v1/files", headers=form)).status == 400
    assert (await raw(fake, b"", path="/nothing")).status == 404


async def test_stop_ends_what_is_in_flight_and_can_be_called_twice(call: Call) -> None:
    server = await start(DemoSettings())
    writer = await hold(server, call)
    await server.stop()
    await server.stop()
    assert server.stats.in_flight == 0
    writer.close()
    with pytest.raises(OSError):
        await asyncio.open_connection(server.host, server.port)
    async with await start(DemoSettings(port=server.port)) as again:
        assert again.port == server.port


async def test_a_taken_port_is_an_error(fake: DemoServer) -> None:
    with pytest.raises(OSError):
        await start(DemoSettings(port=fake.port))


async def test_worker_echoes(fake: DemoServer, raw: Ask) -> None:
    answer = await raw(
        fake, b"12345678", path="/worker/a/b?c=d", method="PATCH", headers="x-odd: 1\r\nconnection: close\r\n"
    )
    assert (answer.json["method"], answer.json["path"], answer.json["query"]) == ("PATCH", "/a/b", "c=d")
    assert answer.json["bytes"] == 8
    assert answer.json["sha256"] == "ef797c8118f02dfb649607dd5d3f8c7623048c9c063d532cc95c5ed7a898a64f"
    assert ["x-odd", "1"] in answer.json["headers"]
    assert answer.json["usage"] == {"tokens": {"input": 2, "output": 24}}


async def test_worker_executes(fake: DemoServer, raw: Ask) -> None:
    body = {"action": "granulate", "input": {"a": 1}, "params": {}, "config": {}, "timeout": 30}
    answer = (await raw(fake, body, path="/worker/api/execute")).json
    assert set(answer) >= {"success", "output", "usage", "model", "duration", "storage", "metadata"}
    assert (answer["success"], answer["output"]["action"], answer["output"]["input"]) == (True, "granulate", {"a": 1})
    assert answer["usage"]["tokens"] == {"input": 2, "output": 24}
    failed = (await raw(fake, body | {"params": {"fail": True}}, path="/worker/api/execute")).json
    assert (failed["success"], failed["output"]) == (False, None)
    broken = await raw(fake, body | {"params": {"x-fake": "status=500"}}, path="/worker/api/execute")
    assert broken.status == 500
    assert (await raw(fake, b"", path="/worker/api/execute", method="GET")).status == 200  # an echo like any other


async def test_nothing_is_kept_after_a_reset(fake: DemoServer, client: openai.AsyncOpenAI, raw: Ask) -> None:
    made = await client.files.create(file=("a", b"a"), purpose="batch")
    fake.reset()
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(made.id)
