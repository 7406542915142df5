"""Several keys of one provider and the limits that their answers teach."""

from __future__ import annotations

from random import Random

import pytest

from gateway.routing.keyring import Credential, Keyring

WALL_NS = 1_750_000_000_000_000_000  # 2025-06-15T15:06:40Z


def ring(count: int = 2) -> Keyring:
    return Keyring([Credential([(b"authorization", b"Bearer %d" % i)]) for i in range(count)], Random(5))


@pytest.mark.parametrize(
    ("headers", "rests_s"),
    [
        ([(b"x-ratelimit-remaining-requests", b"0"), (b"x-ratelimit-reset-requests", b"12s")], 12),
        ([(b"x-ratelimit-remaining-tokens", b"0"), (b"x-ratelimit-reset-tokens", b"6m0s")], 360),
        ([(b"x-ratelimit-remaining-tokens", b"0"), (b"x-ratelimit-reset-tokens", b"120ms")], 0.12),
        ([(b"x-ratelimit-remaining-tokens", b"1"), (b"x-ratelimit-reset-tokens", b"6m0s")], 0),
        ([(b"x-ratelimit-remaining-tokens", b"0"), (b"x-ratelimit-reset-tokens", b"later")], 0),
        ([(b"x-ratelimit-remaining-tokens", b"0")], 0),
        (
            [
                (b"anthropic-ratelimit-requests-remaining", b"0"),
                (b"anthropic-ratelimit-requests-reset", b"2025-06-15T15:07:00Z"),
            ],
            20,
        ),
        (
            [
                (b"anthropic-ratelimit-output-tokens-remaining", b"0"),
                (b"anthropic-ratelimit-output-tokens-reset", b"2025-06-15T15:06:50Z"),
            ],
            10,
        ),
        ([(b"x-ratelimit-remaining-requests", b"0"), (b"x-ratelimit-reset-requests", b"900h")], 3600),
    ],
)
def test_limits_are_learnt_from_headers(headers: list[tuple[bytes, bytes]], rests_s: float) -> None:
    one = ring().credentials[0]
    one.learn(headers, "m", 0, WALL_NS)
    if rests_s:
        assert one.rests("m", round(rests_s * 1e9) - 1_000_000)
        assert not one.rests("other", 0)
    assert not one.rests("m", round(rests_s * 1e9) + 1_000_000)


def test_a_key_that_rests_is_passed_over_and_all_resting_the_soonest_is_taken() -> None:
    keys = ring(3)
    first, second, third = keys.credentials
    first.put_aside("m", 100)
    second.put_aside("m", 50)
    assert {keys.choose("m", 0, []) for _ in range(20)} == {third}
    third.put_aside("m", 200)
    assert keys.choose("m", 0, []) is second
    assert keys.choose("m", 0, [second]) is None  # nothing is gained by going on
    assert keys.choose("other", 0, [second]) in (first, third)
    assert keys.choose("m", 60, [second]) is None
    assert keys.choose("m", 101, [second]) is first
    assert keys.choose("m", 0, [first, second, third]) is None


def test_the_less_busy_of_two_is_taken() -> None:
    keys = ring(2)
    keys.credentials[0].outstanding = 3
    assert {keys.choose("m", 0, []) for _ in range(20)} == {keys.credentials[1]}
