"""Encoded request bodies."""

import gzip
import time
import zlib
from collections.abc import Callable

import pytest
import zstandard

from gateway.server.bodies import decode, decoder
from gateway.server.refusal import BodyRefused, Refusal

TEXT = b'{"model": "gpt-4o", "messages": []}' * 1_000
MIB = 1024 * 1024


def raw_deflate(data: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return machine.compress(data) + machine.flush()


ENCODERS: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (b"", bytes),
    (b"identity", bytes),
    (b"gzip", gzip.compress),
    (b"X-GZip", gzip.compress),
    (b" deflate ", zlib.compress),
    (b"deflate", raw_deflate),
    (b"zstd", zstandard.compress),
]


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS)
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_it_is_decoded_whatever_its_pieces(encoding: bytes, encode: Callable[[bytes], bytes], size: int) -> None:
    data = encode(TEXT)
    assert decode(encoding, [data[at : at + size] for at in range(0, len(data), size)], len(TEXT)) == TEXT


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS)
def test_one_byte_over_the_limit_is_413(encoding: bytes, encode: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Refusal) as caught:
        decode(encoding, [encode(TEXT)], len(TEXT) - 1)
    assert caught.value.status == 413


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS[2:])
def test_a_bomb_is_stopped_early(encoding: bytes, encode: Callable[[bytes], bytes]) -> None:
    """What is given out stays within the limit, however much the body would become."""
    bomb = encode(bytes(64 * MIB)) * 4
    machine = decoder(encoding, MIB)
    given = 0
    with pytest.raises(Refusal) as caught:  # noqa: PT012 -- how much came before is the point
        for at in range(0, len(bomb), 1_000):
            given += len(machine.feed(bomb[at : at + 1_000]))
    assert caught.value.status == 413
    assert given <= MIB


@pytest.mark.parametrize(("encoding", "encode"), ENCODERS[2:])
def test_damaged_or_cut_bodies_are_400(encoding: bytes, encode: Callable[[bytes], bytes]) -> None:
    data = encode(TEXT)
    for bad in (b"", data[:-1], data[: len(data) // 2], b"\xff" * 50, data[:10] + b"\xff" * 40):
        with pytest.raises(BodyRefused) as caught:
            decode(encoding, [bad], 10 * MIB)
        assert caught.value.status == 400


@pytest.mark.parametrize("encode", [gzip.compress, zstandard.compress])
def test_members_and_frames_follow_each_other(encode: Callable[[bytes], bytes]) -> None:
    encoding = b"gzip" if encode is gzip.compress else b"zstd"
    assert decode(encoding, [encode(b"a") + encode(b"b")], 10) == b"ab"
    with pytest.raises(BodyRefused):
        decode(encoding, [encode(b"a") + b"trash"], 10)


@pytest.mark.parametrize("encode", [gzip.compress, zstandard.compress])
def test_thousands_of_empty_members_are_refused_at_once(encode: Callable[[bytes], bytes]) -> None:
    """Each costs a new decoder, and a copy of what is behind it: a quarter of a million in one piece took hours."""
    encoding = b"gzip" if encode is gzip.compress else b"zstd"
    body = encode(b"") * 250_000
    began = time.process_time()
    with pytest.raises(BodyRefused) as caught:
        decode(encoding, [body], MIB)
    assert caught.value.status == 400
    assert time.process_time() - began < 1


@pytest.mark.parametrize("encode", [gzip.compress, zstandard.compress])
def test_members_that_carry_something_may_be_many(encode: Callable[[bytes], bytes]) -> None:
    """As bgzip and pigz write them: a member for each block."""
    encoding = b"gzip" if encode is gzip.compress else b"zstd"
    assert decode(encoding, [encode(bytes(1_024)) * 8_000], 8 * MIB) == bytes(1_024 * 8_000)


def test_bytes_behind_deflate_are_refused() -> None:
    with pytest.raises(BodyRefused):
        decode(b"deflate", [zlib.compress(b"a") + b"b"], 10)


def test_a_large_zstd_window_is_refused() -> None:
    """It would make the decoder take as much memory."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    data = zstandard.ZstdCompressor(compression_params=parameters).compressobj().compress(bytes(MIB))
    machine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = machine.compress(bytes(MIB)) + machine.flush()
    with pytest.raises(BodyRefused):
        decode(b"zstd", [data], 10 * MIB)


@pytest.mark.parametrize("encoding", [b"br", b"compress", b"gzip, gzip", b"gzip,identity", b"gzip;q=1", b"aws-chunked"])
def test_other_encodings_are_415(encoding: bytes) -> None:
    with pytest.raises(BodyRefused) as caught:
        decode(encoding, [], 10)
    assert caught.value.status == 415
    assert caught.value.headers == ((b"accept-encoding", b"gzip, deflate, zstd"),)
