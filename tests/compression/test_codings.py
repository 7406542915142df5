"""Which coding an Accept-Encoding asks for, and that encoders hold nothing back."""

from __future__ import annotations

import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codings import Coding, chosen, encoded, encoder

BOTH: tuple[Coding, ...] = ("zstd", "gzip")


@pytest.mark.parametrize(
    ("accepts", "wanted"),
    [
        (b"gzip, deflate", ("gzip", False)),
        (b"gzip, deflate, br, zstd", ("zstd", False)),
        (b"GZIP ; Q=0.8 , zstd;q=0.3", ("gzip", False)),
        (b"x-gzip", ("gzip", False)),
        (b"gzip;q=0", (None, False)),
        (b"zstd;q=0, *", ("gzip", False)),
        (b"*;q=0.5, zstd;q=0.4", ("gzip", False)),
        (b"*;q=0", (None, True)),
        (b"*;q=0, gzip", ("gzip", True)),
        (b"identity", (None, False)),
        (b"identity, gzip", ("gzip", False)),
        (b"identity;q=1, gzip;q=0.5", (None, False)),
        (b"identity;q=0, gzip;q=0.001", ("gzip", True)),
        (b"br", (None, False)),
        (b"gzip;q=nonsense", (None, False)),
        (b"gzip;q=2", (None, False)),
        (b", ,", (None, False)),
    ],
)
def test_weights_are_honoured(accepts: bytes, wanted: tuple[str | None, bool]) -> None:
    assert chosen(accepts, BOTH) == wanted


def test_of_equals_the_first_that_is_offered() -> None:
    assert chosen(b"zstd, gzip", ("gzip", "zstd"))[0] == "gzip"
    assert chosen(b"zstd", ("gzip",))[0] is None


@given(st.lists(st.binary(max_size=3000), max_size=12), st.binary(max_size=300), st.sampled_from(BOTH))
@settings(max_examples=60, deadline=None)
def test_every_piece_can_be_decoded_when_it_is_out(pieces: list[bytes], last: bytes, coding: Coding) -> None:
    made = encoder(coding)
    decoder = zlib.decompressobj(31) if coding == "gzip" else zstandard.ZstdDecompressor().decompressobj()
    for piece in pieces:
        assert decoder.decompress(made.feed(piece)) == piece
    assert decoder.decompress(made.end(last)) == last


@given(st.binary(max_size=5000))
@settings(max_examples=40, deadline=None)
def test_whole_bodies_come_back(body: bytes) -> None:
    assert zlib.decompress(encoded("gzip", body), 31) == body
    assert zstandard.ZstdDecompressor().decompress(encoded("zstd", body)) == body
