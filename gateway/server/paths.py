"""Paths: the one form of a request target by which the gateway decides and which it forwards.

A path has its canonical form when each byte is plain (RFC 3986 pchar or "/"), escapes of unreserved characters are
decoded, the other escapes are in upper case, and no two readers can split it differently. What has no such form is
refused instead of repaired: a rule that matched the repaired path would not bind an upstream that repairs otherwise.
"""

from ipaddress import IPv6Address
from urllib.parse import unquote_to_bytes

from gateway.server.refusal import BadTarget

UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
PLAIN = UNRESERVED + b"/!$&'()*+,;=:@"
QUERY = bytes(range(0x21, 0x7F)).replace(b"#", b"")
HOST_NAME = UNRESERVED.replace(b"~", b"")
HEX = b"0123456789abcdefABCDEF"
DOTS = frozenset((b".", b".."))
DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


def canonical(raw_path: bytes) -> bytes:
    """The canonical form of a path without its query.

    Raises:
        BadTarget: the path has no safe canonical form; `reason` names the first thing that is wrong with it.
    """
    if raw_path[:1] != b"/":
        raise BadTarget("the path does not begin with '/'")
    path = raw_path
    if path.translate(None, PLAIN):
        path = _decoded(path)
    if b"//" in path:
        raise BadTarget("the path has an empty segment ('//')")
    if b"/." in path:
        _check_dots(path)
    return path


def within(path: bytes, prefix: bytes) -> bytes:
    """The path behind a prefix that the public address has in front of it; as it is, where a proxy took that off."""
    if not prefix or not path.startswith(prefix):
        return path
    rest = path[len(prefix) :]
    return b"/" if not rest else rest if rest[:1] == b"/" else path


def _check_dots(path: bytes) -> None:
    """Refuse dot segments, also with path parameters behind the dots ("/..;x/", which some servers strip first)."""
    for segment in path.split(b"/"):
        if segment.partition(b";")[0].partition(b"%3B")[0] in DOTS:
            raise BadTarget("the path has a dot segment ('.' or '..'), plain or encoded")


def _decoded(path: bytes) -> bytes:
    """The path with its unreserved characters decoded and its other escapes in upper case."""
    first, *rest = path.split(b"%")
    parts = [first]
    for part in rest:
        if not _is_hex_pair(part[:2]):
            raise BadTarget("the path has a percent sign that is not followed by two hexadecimal digits")
        parts += (_escape(int(part[:2], 16)), part[2:])
    result = b"".join(parts)
    odd = result.translate(None, PLAIN + b"%")
    if odd:
        raise BadTarget(f"the path has a character that must be percent-encoded or left out ({odd[:1]!r})")
    if any(_is_hex_pair(part[:2]) for part in result.split(b"%25")[1:]):
        raise BadTarget("the path has a doubly encoded escape ('%25' before two hexadecimal digits)")
    try:
        unquote_to_bytes(result).decode("utf-8")
    except UnicodeDecodeError:
        raise BadTarget("the escapes in the path are not valid UTF-8") from None
    return result


def _is_hex_pair(digits: bytes) -> bool:
    return len(digits) == 2 and not digits.translate(None, HEX)


def _escape(byte: int) -> bytes:
    """One escape in canonical form."""
    if byte in UNRESERVED:
        return bytes((byte,))
    if byte < 0x20 or byte == 0x7F:
        raise BadTarget("the path has an encoded control character")
    if byte in b"/\\":
        raise BadTarget("the path has an encoded '/' or '\\', which upstreams split differently")
    return b"%%%02X" % byte


def check_query(query: bytes) -> bytes:
    """The query string as it came, if it is visible ASCII without '#'.

    Raises:
        BadTarget: another byte is in it.
    """
    if query.translate(None, QUERY):
        raise BadTarget("the query has a character that must be percent-encoded")
    return query


def check_host(value: bytes) -> bytes:
    """The value of Host (`name`, `name:port`, `[v6]:port`) in lower case.

    Raises:
        BadTarget: it is empty, has user information, a list, a bad port, or a character no host name has.
    """
    host = value.lower()
    if host[:1] == b"[":
        literal, bracket, rest = host[1:].partition(b"]")
        good = bracket == b"]" and rest[:1] in (b"", b":") and _is_ipv6(literal)
        colon, port = rest[:1], rest[1:]
    else:
        name, colon, port = host.partition(b":")
        good = 0 < len(name) <= 255 and not name.translate(None, HOST_NAME) and name.strip(b".") != b""
    if colon and not (port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65_535):
        good = False
    if not good:
        raise BadTarget("the Host header is not one host name with an optional port", "bad_host")
    return host


def _is_ipv6(literal: bytes) -> bool:
    if literal.translate(None, HEX + b":."):
        return False
    try:
        IPv6Address(literal.decode("ascii"))
    except ValueError:
        return False
    return True


def origin_form(target: bytes, host: bytes | None) -> tuple[bytes, bytes]:
    """(canonical path, query) of a request target; `host` is the checked Host header, None if there was none.

    An absolute-form target is accepted only if it names the same host as the Host header does.

    Raises:
        BadTarget: authority-form, `*`, a fragment, another host, or a path or query that is refused.
    """
    if target[:1] != b"/":
        target = _reduced(target, host)
    path, _, query = target.partition(b"?")
    if b"#" in target:
        raise BadTarget("it has a fragment ('#')")
    return canonical(path), check_query(query) if query else b""


def _reduced(target: bytes, host: bytes | None) -> bytes:
    """The origin-form of an absolute-form target."""
    scheme, separator, rest = target.partition(b"://")
    scheme = scheme.lower()
    if not separator or scheme not in DEFAULT_PORTS:
        raise BadTarget("it is neither an absolute path nor an http(s) URL")
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?"), rest.find(b"#")) if at >= 0), default=len(rest))
    port = DEFAULT_PORTS[scheme]
    if host is None or check_host(rest[:cut]).removesuffix(port) != host.removesuffix(port):
        raise BadTarget("the URL in the request line names another host than the Host header")
    path = rest[cut:]
    return path if path[:1] == b"/" else b"/" + path
