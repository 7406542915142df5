"""What is read of a provider's own limits in a reply's head."""

from __future__ import annotations

import pytest

from gateway.routing.told import Told, listen

WALL_NS = 1_795_521_600 * 10**9  # Tue, 24 Nov 2026 12:00:00 GMT
LEFT = [(b"x-ratelimit-remaining-tokens", b"12"), (b"x-ratelimit-remaining-requests", b"3")]


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (200, LEFT, Told({"tokens": 12, "requests": 3})),
        (200, [(b"anthropic-ratelimit-tokens-remaining", b"0")], Told({"tokens": 0})),
        (
            200,
            [
                (b"anthropic-ratelimit-requests-remaining", b"1"),
                (b"anthropic-ratelimit-input-tokens-remaining", b"2"),
                (b"anthropic-ratelimit-output-tokens-remaining", b"4"),
            ],
            Told({"requests": 1, "input_tokens": 2, "output_tokens": 4}),
        ),
        (429, [(b"retry-after", b"20")], Told({}, 20.0)),
        (429, [(b"retry-after-ms", b"1500"), (b"retry-after", b"20")], Told({}, 1.5)),
        (429, [(b"retry-after", b"Tue, 24 Nov 2026 12:00:30 GMT")], Told({}, 30.0)),
        (429, [(b"retry-after", b"99999999")], Told({}, 3600.0)),
        (429, [(b"retry-after", b"inf")], None),
        (503, [(b"retry-after", b"20")], None),
        (429, [(b"retry-after", b"soon")], None),
        (200, [(b"x-ratelimit-remaining-tokens", b"-1"), (b"x-ratelimit-remaining-requests", b"9" * 16)], None),
        (200, [(b"x-ratelimit-remaining-tokens", b"many"), (b"content-type", b"x")], None),
    ],
)  # fmt: skip
def test_left_and_pauses(status: int, headers: list[tuple[bytes, bytes]], told: Told | None) -> None:
    assert listen(status, headers, WALL_NS) == told
