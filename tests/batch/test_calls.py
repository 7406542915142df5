"""Calls that go up together come back as if each had gone alone."""

from __future__ import annotations

import asyncio
from typing import Any


async def test_calls_of_one_window_make_one_request_and_get_their_own_items(site: Any) -> None:
    texts = ["a", ["bb", "ccc"], "dddd"]
    answers = await site.together(*texts)
    assert len(site.provider.asked) == 1
    assert [answer.status_code for answer in answers] == [200] * 3
    assert {answer.headers["x-tidegate-batch"] for answer in answers} == {"3"}
    bodies = [answer.json() for answer in answers]
    assert [[one["index"] for one in body["data"]] for body in bodies] == [[0], [0, 1], [0]]
    assert [[one["embedding"] for one in body["data"]] for body in bodies] == [
        [[0.5, 1]],
        [[0.5, 2], [0.5, 3]],
        [[0.5, 4]],
    ]
    assert sum(body["usage"]["prompt_tokens"] for body in bodies) == 4 + 5 + 6 + 7
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3


async def test_only_the_same_go_together(site: Any) -> None:
    site.provider.asked.clear()
    await asyncio.gather(
        site.ask("a"), site.ask("b"), site.ask("c", dimensions=8), site.ask([[1, 2]]), site.ask("d", key="sister"),
        site.ask("e", headers={"openai-beta": "x"}), site.ask("f", headers={"idempotency-key": "k"}),
        site.ask("g", model="mod"), site.ask("h", model="both"),
        site.ask("i", model="lone"), site.ask("j", model="lone"),
    )  # fmt: skip
    asked = sorted(str(one["input"]) for one in site.provider.asked if "'a'" not in str(one["input"]))
    assert asked == ["['c']", "['d']", "['e']", "['f']", "['g']", "['h']", "['i']", "['j']", "[[1, 2]]"]
    assert sorted(next(one for one in site.provider.asked if "a" in one["input"])["input"]) == ["a", "b"]


async def test_moderations_go_together(site: Any) -> None:
    answers = await site.together("flag", "fine", ["fine", "flag"], model="mod")
    assert len(site.provider.asked) == 1
    flagged = [[one["flagged"] for one in answer.json()["results"]] for answer in answers]
    assert flagged == [[True], [False], [False, True]]


async def test_one_bad_input_does_not_fail_the_others(site: Any) -> None:
    texts = ["a", "b", "bad", "c", "d", "e", "f"]
    answers = await site.together(*texts)
    assert [answer.status_code for answer in answers] == [200, 200, 400, 200, 200, 200, 200]
    assert answers[2].json()["error"]["message"] == "bad input"
    good = [(text, answer) for text, answer in zip(texts, answers, strict=True) if text != "bad"]
    assert all(answer.json()["data"][0]["embedding"] == [0.5, len(text)] for text, answer in good)


async def test_many_bad_inputs_cost_few_more_requests_than_they_are(site: Any) -> None:
    answers = await site.together(*[f"bad {number}" for number in range(32)])
    assert {answer.status_code for answer in answers} == {400}
    assert len(site.provider.asked) <= 32 + 2 * 6
    answers = await site.together(*[f"{'bad' if number == 11 else 'good'} {number}" for number in range(32)])
    assert [answer.status_code for answer in answers].count(200) == 31
    assert len(site.provider.asked) <= 1 + 2 * 5


async def test_numbers_too_long_for_a_float_go_up_as_they_came(site: Any) -> None:
    """What goes up for several is written anew, so such a call goes alone."""
    answers = await site.together("a", "b", dimensions=10**20 + 1)
    assert [answer.headers.get("x-tidegate-batch") for answer in answers] == [None, None]
    assert len(site.provider.asked) == 2


async def test_a_batch_is_no_longer_than_its_bounds(site: Any) -> None:
    answers = await site.together(*[["x"] * 9 for _ in range(9)])
    assert {answer.status_code for answer in answers} == {200}
    assert max(len(one["input"]) for one in site.provider.asked) <= 40
    assert sum(len(one["input"]) for one in site.provider.asked) == 81


async def test_an_answer_that_misses_an_item_is_nobodys(site: Any) -> None:
    answers = await site.together("a", "short")
    assert [answer.status_code for answer in answers] == [502, 502]


async def test_a_dying_upstream_fails_each_of_them_once(site: Any) -> None:
    answers = await site.together("a", "die", "b")
    assert {answer.status_code for answer in answers} == {502}
    again = await site.together("a", "b")
    assert [answer.status_code for answer in again] == [200, 200]


async def test_a_batch_fails_over_with_all_its_members(site: Any) -> None:
    answers = await site.together("down", "b", "c", model="both")
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert {answer.headers["x-tidegate-provider"] for answer in answers} == {"other"}
    assert [len(one["input"]) for one in site.provider.asked if one["path"].startswith("/other")] == [3]


async def test_members_reserve_their_quota_alone(site: Any) -> None:
    answers = await site.together("a", "b", "c", key="tight")
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429]
    assert sum(len(one["input"]) for one in site.provider.asked) == 2


async def test_a_member_that_leaves_does_not_cancel_the_others(site: Any) -> None:
    site.provider.asked.clear()
    calls = [asyncio.ensure_future(site.ask(text)) for text in ("slow a", "b", "c")]
    await site.provider.arrived.wait()
    for leaver in calls[:2]:  # whoever leads is among them, or is not
        leaver.cancel()
    await asyncio.wait(calls[:2])
    await asyncio.sleep(0.1)
    site.provider.go.set()
    answer = await calls[2]
    assert answer.status_code == 200
    assert answer.json()["data"][0]["embedding"] == [0.5, 1]
    assert len(site.provider.asked) == 1


async def test_the_leader_may_leave_before_it_is_sent(open_site: Any) -> None:
    site = open_site(window=1000)
    leader = asyncio.ensure_future(site.ask("leader"))
    await asyncio.sleep(0.3)
    others = [asyncio.ensure_future(site.ask(text)) for text in ("b", "c")]
    await asyncio.sleep(0.3)
    leader.cancel()
    answers = await asyncio.gather(*others)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [sorted(one["input"]) for one in site.provider.asked] == [["b", "c"]]


async def test_the_last_to_leave_ends_the_exchange(site: Any) -> None:
    calls = [asyncio.ensure_future(site.ask(text)) for text in ("slow a", "b", "c")]
    await site.provider.arrived.wait()
    for call in calls:
        call.cancel()
    for _ in range(100):
        if site.provider.cancelled:
            break
        await asyncio.sleep(0.05)
    assert site.provider.cancelled == 1


async def test_one_slot_and_those_who_wait_go_with_the_first_that_is_granted(open_site: Any) -> None:
    site = open_site(window=20, slots=1)
    first = asyncio.ensure_future(site.ask("slow"))
    await site.provider.arrived.wait()
    site.provider.asked.clear()
    waiting = [asyncio.ensure_future(site.ask(text)) for text in "abcdefgh"]
    await asyncio.sleep(1.0)
    assert not site.provider.asked
    site.provider.go.set()
    answers = await asyncio.gather(first, *waiting)
    assert {answer.status_code for answer in answers} == {200}
    assert [len(one["input"]) for one in site.provider.asked] == [8]
    assert all(int(answer.headers["x-tidegate-wait-ms"]) > 100 for answer in answers[1:])


async def test_identical_calls_still_make_one(open_site: Any) -> None:
    site = open_site(cache="enforce")
    answers = await site.together("a", "a", "a", "b")
    assert sorted(one for asked in site.provider.asked for one in asked["input"]) == ["a", "b"]
    assert {answer.status_code for answer in answers} == {200}
