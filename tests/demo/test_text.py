"""The fixed text is exactly as many o200k tokens as it says, and input is counted as documented."""

from __future__ import annotations

import pytest

from gateway.demo.text import LENGTH, Text, plain
from gateway.demo.tokens import PER_IMAGE, TokenCounter, quarter


@pytest.fixture(scope="module")
def exact() -> TokenCounter:
    return TokenCounter("o200k")


@pytest.mark.parametrize("count", [0, 1, 2, 24, 197, LENGTH, LENGTH + 1, 3 * LENGTH + 7])
def test_text_has_exactly_as_many_tokens_as_asked(exact: TokenCounter, count: int) -> None:
    assert exact.text(plain(count)) == count


def test_every_piece_is_one_token(exact: TokenCounter) -> None:
    assert {exact.text(piece.decode()) for piece in Text().pieces(LENGTH)} == {1}


def test_joined_text_is_the_pieces_together() -> None:
    text = Text()
    assert text.joined(30) == b"".join(text.pieces(30)) == plain(30).encode()


def test_exact_count_is_the_real_vocabulary(exact: TokenCounter) -> None:
    assert exact.text("hello world") == 2
    assert exact.text("a" * 100_000) == 25_000  # too long to be worth it: by quarters


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("héé", 2), ("潮", 1)])
def test_quarter_counts_bytes(text: str, tokens: int) -> None:
    assert quarter(text) == tokens


def test_messages_count_their_content_and_framing() -> None:
    counter = TokenCounter("quarter")
    assert counter.messages([{"role": "user", "content": "abcd"}]) == 3 + 3 + 1
    parts = [{"type": "text", "text": "abcdefgh"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    assert counter.messages([{"role": "user", "content": parts}]) == 3 + 3 + 2 + PER_IMAGE
    assert counter.messages([{"role": "assistant", "content": None}, "abcd"]) == 3 + 3 + 3 + 1


def test_long_or_many_texts_are_not_all_remembered() -> None:
    counter = TokenCounter("quarter")
    assert all(counter.text(f"text {number}") == quarter(f"text {number}") for number in range(5_000))
    assert counter.text("x" * 100_000) == 25_000
