"""One key, one execution, one charge; everybody gets the first result."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from gateway.routes import TABLE


def own(headers: Any) -> dict[str, str]:
    """What of an answer is the provider's."""
    return {k: v for k, v in headers.items() if k.startswith(("content-type", "openai-", "x-upstream-request-id"))}


async def test_a_repetition_gets_the_first_result(site: Any) -> None:
    one = await site()
    first, second = await one.post(x_nonce="a"), await one.post(x_nonce="b")
    assert (first.status_code, second.status_code, one.executed) == (200, 200, 1)
    assert second.content == first.content
    assert own(second.headers) == own(first.headers)
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["x-tidegate-replay-of"] == first.headers["x-request-id"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert second.headers["x-tidegate-cost"] == "0"
    rows = await one.calls()
    assert [(row["outcome"], row["attempts"]) for row in rows[:2]] == [("answered", 0), ("served", 1)]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_streams_are_replayed_as_streams(site: Any, dialect: str) -> None:
    one = await site()
    model, path = ("small", "/v1/chat/completions") if dialect == "openai" else ("claude", "/v1/messages")
    body = {"model": model, "max_tokens": 12, "stream": True, "messages": [{"role": "user", "content": "Tide."}]}
    seen = []
    for _ in range(2):
        headers = {
            "authorization": "Bearer tg-acme-secret-key",
            "idempotency-key": one.key("s"),
            "x-fake": "chunk-ms=3",
        }
        async with one.http.stream("POST", path, json=body, headers=headers) as answer:
            chunks = [chunk async for chunk in answer.aiter_raw()]
            seen.append((answer.headers["content-type"], answer.headers.get("content-length"), b"".join(chunks)))
            # a transfer chunk an event, where the client's reads do not run them together
            assert len(chunks) > 1
    assert seen[0] == seen[1]
    assert one.executed == 1


async def test_another_body_or_path_is_a_conflict_that_is_not_retried(site: Any, chat: Any) -> None:
    one = await site()
    await one.post()
    other_body = await one.post(body={**chat, "max_tokens": 21})
    other_path = await one.post(path="/v1/embeddings", body={"model": "small", "input": "x"})
    for answer in (other_body, other_path):
        assert answer.status_code == 409
        assert answer.headers["x-should-retry"] == "false"
        assert answer.json()["error"]["code"] == "idempotency_key_reused"
    assert one.executed == 1


async def test_while_it_runs_another_body_is_a_conflict_at_once(site: Any, chat: Any) -> None:
    one = await site()
    first = asyncio.ensure_future(one.post(x_fake="latency-ms=1500"))
    await one.until(lambda: one.in_flight == 1)
    assert (await one.post(body={**chat, "max_tokens": 21})).status_code == 409
    assert not first.done()
    assert (await first).status_code == 200


async def test_keys_belong_to_org_and_client(site: Any) -> None:
    one = await site()
    answers = [await one.post(who=who) for who in ("acme", "sister", "other")]  # other has one call an hour
    assert [a.status_code for a in answers] == [200, 200, 200]
    assert not any("idempotent-replayed" in a.headers for a in answers)
    assert one.executed == 3


async def test_a_hundred_at_once_are_one_execution_and_one_charge(site: Any) -> None:
    one = await site("[prices.small]\ninput = 0\noutput = 10\n")
    answers = await asyncio.gather(*(one.post(x_fake="latency-ms=300", x_nonce=str(n)) for n in range(100)))
    assert {a.status_code for a in answers} == {200}
    assert len({a.content for a in answers}) == 1
    assert one.executed == 1
    assert sum("idempotent-replayed" in a.headers for a in answers) == 99
    asked = ("usage", "--by", "client", "--json", "--config", str(one.server.config))
    (row,) = await asyncio.to_thread(one.server.tidegate, *asked)
    assert (row["calls"], row["attempts"], row["charge_usd"]) == (100, 1, "0.0002")


async def test_a_hundred_streams_at_once(site: Any, chat: Any) -> None:
    one = await site()
    calls = (one.post(body={**chat, "stream": True}, x_fake="chunk-ms=10") for _ in range(100))
    answers = await asyncio.gather(*calls)
    assert one.executed == 1
    assert len({a.content for a in answers}) == 1
    assert answers[0].content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("fault", ["status=429", "status=500", "status=503", "reset=head", "html", "status=401"])
async def test_what_may_be_different_next_time_is_not_kept(site: Any, fault: str) -> None:
    one = await site()
    assert (await one.post(x_fake=fault)).status_code >= 400
    again = await one.post()
    assert again.status_code == 200
    assert "idempotent-replayed" not in again.headers


@pytest.mark.parametrize("fault", ["die=after:3", "reset=after:3", "overloaded=after:3"])
async def test_half_a_stream_is_not_kept(site: Any, chat: Any, fault: str) -> None:
    one = await site()
    body = {**chat, "stream": True}
    assert b"[DONE]" not in (await one.post(body=body, x_fake=fault)).content
    again = await one.post(body=body)
    assert again.content.endswith(b"data: [DONE]\n\n")
    assert "idempotent-replayed" not in again.headers


async def test_what_upstream_says_of_the_request_is_kept(site: Any) -> None:
    one = await site()
    first, second = await one.post(x_fake="status=400"), await one.post()
    assert (first.status_code, second.status_code) == (400, 400)
    assert second.content == first.content
    assert one.executed == 1


async def test_a_refusal_of_ours_is_not_kept_and_the_next_executes(site: Any) -> None:
    one = await site(own=True)
    assert (await one.post(key="a", who="other")).status_code == 200
    assert (await one.post(key="b", who="other")).status_code == 429
    assert (await one.post(key="b", who="other")).status_code == 429
    assert (await one.post(key="a", who="other")).headers["idempotent-replayed"] == "true"
    assert one.executed == 1


async def test_those_who_wait_take_over_from_a_failure(site: Any) -> None:
    one = await site()
    first = asyncio.ensure_future(one.post(x_fake="latency-ms=1000; status=401"))
    await one.until(lambda: one.in_flight == 1)
    answers = await asyncio.gather(*(one.post() for _ in range(4)))
    assert (await first).status_code >= 400
    assert {a.status_code for a in answers} == {200}
    assert one.executed == 2


async def test_a_restart_keeps_results(site: Any, start: Any, chat: Any) -> None:
    one = await site(own=True)
    stream = {**chat, "stream": True}
    long = {"model": "small", "input": ["x"] * 40}
    first = [await one.post(key="a"), await one.post(key="b", body=stream)]
    first.append(await one.post(key="c", path="/v1/embeddings", body=long))
    assert len(first[2].content) > 100_000  # too long for the journal
    await one.until(lambda: one.in_flight == 0)
    await asyncio.to_thread(one.server.stop)
    again = await asyncio.to_thread(one.server.again)
    two = type(one)(again, one.demo, one.prefix)
    second = [await two.post(key="a"), await two.post(key="b", body=stream)]
    second.append(await two.post(key="c", path="/v1/embeddings", body=long))
    await two.http.aclose()
    await asyncio.to_thread(again.stop)
    assert [a.content for a in second] == [a.content for a in first]
    assert all("idempotent-replayed" in a.headers for a in second)
    assert one.executed == 3


async def test_kill_9_keeps_results(site: Any) -> None:
    one = await site(own=True)
    first = await one.post()
    os.kill(one.server.process.pid, signal.SIGKILL)
    await asyncio.to_thread(one.server.process.wait)
    again = await asyncio.to_thread(one.server.again)
    two = type(one)(again, one.demo, one.prefix)
    second = await two.post()
    await two.http.aclose()
    await asyncio.to_thread(again.stop)
    assert second.content == first.content
    assert one.executed == 1


async def test_a_reload_keeps_results_and_calls_that_wait(site: Any) -> None:
    one = await site(own=True)
    first = asyncio.ensure_future(one.post(x_fake="latency-ms=600"))
    await one.until(lambda: one.in_flight == 1)
    done = await asyncio.to_thread(one.server.command, "reload", "-c", str(one.server.config))
    assert done.returncode == 0
    second = await one.post()
    assert second.content == (await first).content
    assert one.executed == 1


async def test_observing_executes_again_and_says_so(site: Any) -> None:
    one = await site('[policy.idempotency]\nmode = "observe"\n')
    answers = await asyncio.gather(one.post(), one.post())
    answers.append(await one.post())
    assert [a.status_code for a in answers] == [200] * 3
    assert one.executed == 3


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
async def test_a_key_has_a_shape(site: Any, key: str) -> None:
    one = await site()
    answer = await one.post(None, idempotency_key=key)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_idempotency_key"


TURN = [{"role": "user", "content": "hi"}]
POSTS = sorted({route.name for route in TABLE if "POST" in route.methods and route.plane == "data"})


async def test_every_post_route_has_it(site: Any) -> None:
    """One example a route; each twice with one key."""
    one = await site()
    bodies: dict[str, tuple[str, Any]] = {
        "chat": ("/v1/chat/completions", {"model": "small", "messages": TURN}),
        "responses": ("/v1/responses", {"model": "small", "input": "x"}),
        "completions": ("/v1/completions", {"model": "small", "prompt": "x"}),
        "embeddings": ("/v1/embeddings", {"model": "small", "input": "x"}),
        "moderations": ("/v1/moderations", {"model": "small", "input": "x"}),
        "images": ("/v1/images/generations", {"model": "small", "prompt": "x"}),
        "audio": ("/v1/audio/speech", {"model": "small", "input": "x", "voice": "alloy"}),
        "files": ("/v1/files", None),
        "messages": ("/v1/messages", {"model": "claude", "max_tokens": 3, "messages": TURN}),
        "count_tokens": ("/v1/messages/count_tokens", {"model": "claude", "messages": TURN}),
        "other": ("/v1/anything/else", {"x": 1}),
        "worker": ("/workers/echo/api/execute", {"action": "process"}),
    }
    objects = {"chat_objects", "response_objects", "batches", "message_batches"}  # on objects that a call made
    assert set(bodies) | objects == set(POSTS)
    for number, (path, body) in enumerate(bodies.values()):
        answers = [await send(one, f"r{number}", path, body) for _ in range(2)]
        assert [a.status_code for a in answers] == [200, 200], (path, answers[0].content)
        assert answers[0].content == answers[1].content
        assert answers[1].headers["idempotent-replayed"] == "true", path
    made = (await send(one, "f", "/v1/files", None)).json()["id"]
    batch = {"input_file_id": made, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    ids = [(await one.post("bat", "/v1/batches", batch)).json()["id"] for _ in range(2)]
    assert ids[0] == ids[1]
    assert one.executed == len(bodies) + 2


async def send(one: Any, key: str, path: str, body: Any) -> Any:
    """A call; without a body a small file in a form whose boundary is new each time."""
    if body is not None:
        return await one.post(key, path, body)
    headers = {"authorization": "Bearer tg-acme-secret-key", "idempotency-key": one.key(key)}
    form = {"files": {"file": ("a.jsonl", b"{}" * 50)}, "data": {"purpose": "batch"}}
    return await one.http.post(path, headers=headers, **form)


async def test_another_file_is_a_conflict(site: Any) -> None:
    one = await site()
    headers = {"authorization": "Bearer tg-acme-secret-key", "idempotency-key": one.key("k")}
    codes = []
    for content in (b"aaaa", b"aaaa", b"bbbb", b"aaaaa"):
        form = {"files": {"file": ("a.jsonl", content)}, "data": {"purpose": "batch"}}
        codes.append((await one.http.post("/v1/files", headers=headers, **form)).status_code)
    assert codes == [200, 200, 409, 409]


async def test_a_body_that_passes_unread_arrives_whole(site: Any) -> None:
    """Its first bytes are looked at before it is on its way."""
    one = await site()
    content = os.urandom(300_000)
    for path in ("/workers/echo/anything", "/workers/echo/anything"):
        answer = await one.post(path=path, body=content, content_type="application/octet-stream")
        assert answer.json()["bytes" if "bytes" in answer.json() else "length"] == len(content)
    assert one.executed == 1


async def test_an_answer_too_long_to_keep_is_not_executed_again(site: Any) -> None:
    one = await site("[policy.idempotency]\nresult_mib = 1\n")
    body = {"model": "small", "input": ["x"] * 300}
    first = await one.post(path="/v1/embeddings", body=body)
    assert first.status_code == 200
    assert len(first.content) > 1_048_576
    second = await one.post(path="/v1/embeddings", body=body)
    assert second.status_code == 409
    assert second.json()["error"]["code"] == "idempotency_result_not_kept"
    assert second.headers["x-should-retry"] == "false"
    assert one.executed == 1


async def test_the_sdk_sends_its_own_key(site: Any) -> None:
    """`Idempotency-Key` as the OpenAI SDK makes it, the same for all its retries."""
    from openai import AsyncOpenAI

    one = await site()
    one.fake("plan", [{"nth": [1], "fake": "status=503; retry-after-ms=10"}])
    async with AsyncOpenAI(base_url=f"{one.server.address}/v1", api_key="tg-acme-secret-key") as client:
        client._idempotency_header = "Idempotency-Key"
        answer = await client.chat.completions.create(model="small", messages=[{"role": "user", "content": "hi"}])
        options: Any = {"extra_headers": {"Idempotency-Key": one.key("mine")}}
        more = [
            await client.chat.completions.create(model="small", messages=[{"role": "user", "content": "hi"}], **options)
            for _ in range(2)
        ]
    assert answer.choices[0].message.content
    one.fake("plan", [])
    assert more[0].id == more[1].id
    assert one.executed == 3


async def test_upstream_gets_a_key_of_its_own(site: Any) -> None:
    """Two clients' equal keys never meet at the provider, where both are sent with one credential."""
    one = await site()
    for who in ("acme", "sister"):
        await one.post(who=who)
    seen = {dict(request["headers"]).get("idempotency-key") for request in one.fake("requests")["requests"][-2:]}
    assert len(seen) == 2
    assert not seen & {None, one.key("k")}
