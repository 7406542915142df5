"""What is remembered between heads changes nothing in what is read."""

import dataclasses

import pytest

from gateway.server.head import Head, HeadReader
from gateway.server.limits import WireLimits
from gateway.server.refusal import Refusal
from gateway.server.template import HeadTemplate

LINES = [b"Host: x", b"Content-Type: a", b"Authorization: Bearer secret", b"X-Api-Key: secret", b"Content-Length: 3"]


def read(reader: HeadReader, *lines: bytes) -> object:
    head = reader.read(b"\r\n".join((b"POST /v1/a HTTP/1.1", *lines)))
    return vars(head)


def test_a_remembered_line_is_read_as_a_new_one() -> None:
    reader = HeadReader(100, 1_000, 0)
    first = read(reader, *LINES)
    assert read(reader, *LINES) == first
    assert read(HeadReader(100, 1_000, 0), *LINES) == first


def test_no_credential_is_remembered() -> None:
    reader = HeadReader(100, 1_000, 0)
    read(reader, *LINES, b"Cookie: secret", b"Proxy-Authorization: secret")
    reader.read(b"GET /a?key=secret HTTP/1.1\r\nHost: x")
    assert "secret" not in repr(vars(reader))
    assert "application" not in repr(vars(reader))
    assert b"Content-Type: a" in reader._lines


def test_what_is_remembered_is_bounded() -> None:
    reader = HeadReader(100, 10_000, 0)
    for number in range(5_000):
        reader.read(b"GET /%d HTTP/1.1\r\nHost: x\r\nX-%d: %d" % (number, number, number))
    reader.read(b"GET /%b HTTP/1.1\r\nHost: x\r\nX: %b" % (b"a" * 5_000, b"a" * 5_000))
    sizes = [len(reader._lines), len(reader._first_lines), len(reader._names)]
    assert max(sizes) <= reader.remembered_lines
    assert len(repr(vars(reader))) < 600_000


@pytest.mark.parametrize("bad", [b"Host : x", b"Host: x\x00", b" Host: x", b"Host: a b"])
def test_a_refused_line_is_not_remembered(bad: bytes) -> None:
    reader = HeadReader(100, 1_000, 0)
    for _ in range(3):
        with pytest.raises(Refusal):
            read(reader, bad)


@pytest.mark.parametrize(
    "name", [field.name for field in dataclasses.fields(WireLimits) if field.name not in ("uncapped", "prefix")]
)
def test_limits_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        WireLimits(**{name: -1})


def parts(head: Head) -> list[object]:
    framing = [head.length, head.keep_alive, head.expects_continue]
    return [head.method, head.minor, head.path, head.query, head.headers, head.fields, *framing]


VARIANTS = [
    b"POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nAuthorization: Bearer 3",
    b"POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 12345\r\nAuthorization: Bearer 3",
    b"POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nAuthorization: Bearer 4",
    b"POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX: 3\r\nAuthorization: Bearer 3",
    b"POST /v1/a HTTP/1.1\r\nHost: x\r\ncontent-length:\t4 \r\nAuthorization: Bearer 3",
    b"POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close",
    b"POST /v1/a?Content-Length:3 HTTP/1.1\r\nHost: x\r\nX: Content-Length: 3\r\nContent-Length: 5",
    b"GET /v1/a HTTP/1.1\r\nHost: x",
    b"GET /v1/a HTTP/1.1\r\nHost: xy",
    b"POST /v1/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked",
    b"\r\nGET /v1/a HTTP/1.1\r\nHost: x",
]


def test_a_head_like_the_last_is_read_as_it_is() -> None:
    reader = HeadReader(100, 1_000, 0)
    expected = [parts(reader.read(raw)) for raw in VARIANTS]
    for first in VARIANTS:
        for number, second in enumerate(VARIANTS):
            template = HeadTemplate(reader)
            for _ in range(3):
                head = template.read(first)
                head.headers.append((b"x-added-by", b"the application"))
                head.fields[b"x-added-by"] = b"the application"
            assert parts(template.read(second)) == expected[number]


@pytest.mark.parametrize("number", [b"", b"+3", b"03", b"3 3", b"3\r\nX: y", b"3,3", b"-1", b"1" * 16, b"99999"])
def test_a_bad_length_in_a_like_head_is_refused_or_read_anew(number: bytes) -> None:
    reader = HeadReader(100, 1_000, 50_000)
    template = HeadTemplate(reader)
    for _ in range(3):
        template.read(VARIANTS[0])
    raw = VARIANTS[0].replace(b"Length: 3", b"Length: " + number)
    if b"X: y" in number:
        assert len(template.read(raw).headers) == 4
        return
    with pytest.raises(Refusal):
        template.read(raw)
