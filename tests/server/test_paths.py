"""One canonical form of a path, or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.server.paths import canonical, check_host, check_query, origin_form
from gateway.server.refusal import BadTarget


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        (b"/", b"/"),
        (b"/v1/chat/completions", b"/v1/chat/completions"),
        (b"/v1/models/", b"/v1/models/"),
        (b"/v1/models/@cf/meta/llama-3", b"/v1/models/@cf/meta/llama-3"),
        (b"/%76%31/%63hat", b"/v1/chat"),
        (b"/a%2Db%5f%7E", b"/a-b_~"),
        (b"/a%20b%c3%a9", b"/a%20b%C3%A9"),
        (b"/a%3fb%23c%3b", b"/a%3Fb%23c%3B"),
        (b"/100%25", b"/100%25"),
        (b"/100%25zz", b"/100%25zz"),
        (b"/.well-known/x", b"/.well-known/x"),
        (b"/a/...", b"/a/..."),
        (b"/a..b/c.", b"/a..b/c."),
        (b"/a;v=1/b:c!$&'()*+,=~", b"/a;v=1/b:c!$&'()*+,=~"),
    ],
)
def test_canonical_forms(raw: bytes, form: bytes) -> None:
    assert canonical(raw) == form
    assert canonical(form) == form


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"a",
        b"*",
        b"@host/a",
        b"host:80",
        b"//",
        b"//host/a",
        b"/a//b",
        b"/a//",
        b"/.",
        b"/..",
        b"/../",
        b"/a/./b",
        b"/a/../b",
        b"/a/..",
        b"/a/%2e%2e/b",
        b"/a/.%2E/b",
        b"/a/%2e/b",
        b"/a/..;x=1/b",
        b"/a/..%3bx/b",
        b"/a/.;/b",
        b"/a%2fb",
        b"/a%2Fb",
        b"/a%5cb",
        b"/a\\b",
        b"/a%00b",
        b"/a%0d%0ab",
        b"/a%7f",
        b"/a%1F",
        b"/a%",
        b"/a%2",
        b"/a%zz",
        b"/a%2 5",
        b"/a%%35",
        b"/a%252fb",
        b"/a%25%32%66b",
        b"/a%252e%252e/b",
        b"/a b",
        b"/a\tb",
        b"/a\x00b",
        b"/a\xc3\xa9",
        b"/a\xff",
        b"/a%ff",
        b"/%c0%ae%c0%ae/",
        b"/a%c3",
        b"/a#b",
        b"/a?b",
        b'/a"b',
        b"/a<b>",
        b"/a|b",
        b"/a^b",
        b"/a`b",
        b"/a{b}",
        b"/a[b]",
    ],
)
def test_paths_without_a_canonical_form(raw: bytes) -> None:
    with pytest.raises(BadTarget) as caught:
        canonical(raw)
    assert caught.value.reason
    assert caught.value.status == 400


PIECES = st.sampled_from(rb"/ . .. a % 25 2e 2f %2e %5c %41 \ ; %3b".split())


@given(st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=12).map(b"".join)))
def test_a_canonical_path_has_no_second_reading(raw: bytes) -> None:
    try:
        form = canonical(b"/" + raw)
    except BadTarget:
        return
    assert canonical(form) == form
    from urllib.parse import unquote_to_bytes

    decoded = unquote_to_bytes(form)
    assert b"//" not in decoded
    assert b"\\" not in decoded
    assert decoded.count(b"/") == form.count(b"/")
    assert all(segment.partition(b";")[0] not in (b".", b"..") for segment in decoded.split(b"/"))
    assert min(decoded) >= 0x20
    assert unquote_to_bytes(decoded).count(b"/") == form.count(b"/")
    assert form.isascii()


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"x", b"x"),
        (b"API.Example.com", b"api.example.com"),
        (b"example.com.", b"example.com."),
        (b"a_b-c:8080", b"a_b-c:8080"),
        (b"127.0.0.1:65535", b"127.0.0.1:65535"),
        (b"[::1]", b"[::1]"),
        (b"[2001:DB8::1]:443", b"[2001:db8::1]:443"),
    ],
)
def test_hosts(value: bytes, host: bytes) -> None:
    assert check_host(value) == host


@pytest.mark.parametrize(
    "value",
    [
        *rb":80 a: a:0 a:65536 a:+80 a:80:80 a,b a/b a@b a?b a#b a%41 [::1 ::1 [::g] [::1]x [::1%eth0] []".split(),
        *rb". .. a\b http://a".split(),
        *(b"", b"a b", b"a\xff", b"x" * 256),
    ],
)
def test_bad_hosts(value: bytes) -> None:
    with pytest.raises(BadTarget):
        check_host(value)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a", b"/a", b""),
        (b"/a?", b"/a", b""),
        (b"/a?b=%2f&c=d?e", b"/a", b"b=%2f&c=d?e"),
        (b"/a?b//../c", b"/a", b"b//../c"),
        (b"http://x", b"/", b""),
        (b"HTTP://X/a?b", b"/a", b"b"),
        (b"http://x:80/a", b"/a", b""),
        (b"https://x?b", b"/", b"b"),
    ],
)
def test_targets(target: bytes, path: bytes, query: bytes) -> None:
    assert origin_form(target, b"x") == (path, query)


@pytest.mark.parametrize(
    "target",
    [
        *rb"* x:80 a http:/x/a http:x ftp://x/a http://y/a http://x:8080/a http://u@x/a http://x@y/a".split(),
        *rb"http://x\y/a http:///a http://x//a http://x/../a //x/a /a#b /a?b#c http://x#f http://x:/a".split(),
        *(b"/a?b c", b"/a?\xff"),
    ],
)
def test_bad_targets(target: bytes) -> None:
    with pytest.raises(BadTarget):
        origin_form(target, b"x")


def test_an_absolute_form_needs_a_host() -> None:
    with pytest.raises(BadTarget):
        origin_form(b"http://x/", None)


def test_queries() -> None:
    assert check_query(b"a=b&c=%00") == b"a=b&c=%00"
    with pytest.raises(BadTarget):
        check_query(b"a\x7f")
