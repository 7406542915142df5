"""Head: the request line and the header lines of one request, read in the one way that the gateway stands by.

Parsers differ over bare line ends, folded lines, spaces around names and repeated lengths; each difference lets a
second request be hidden from one of them (RFC 9112 section 11.2). So the raw head is read here and nothing is
repaired: it is what RFC 9112 says it should be, or it is refused.

Clients repeat their lines, so a line that was read once is remembered (bounded, and never one that carries a
credential), and a request costs one look-up a line.
"""

from typing import Any, NamedTuple

from gateway.server.paths import UNRESERVED, check_host, origin_form, within
from gateway.server.refusal import BadFraming, BadTarget, Refusal

METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
# Others go to workers only (WebDAV's, QUERY, PURGE, ...); these never do: they show headers, or name no resource.
NEVER = frozenset((b"CONNECT", b"TRACE", b"TRACK", b"PRI"))
UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-"
LONGEST_METHOD = 32
VERSIONS = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
TOKEN = UNRESERVED + b"!#$%&'*+^`|"
CONTROLS = bytes(byte for byte in range(0x20) if byte != 0x09) + b"\x7f"
LONGEST_LENGTH = 15  # digits of a content-length

# Lines that are not remembered: they carry a credential, or differ from request to request.
PASSING = frozenset(
    b"authorization proxy-authorization x-api-key api-key cookie content-length "
    b"idempotency-key x-request-id traceparent tracestate".split()
)
# Fields of which a second one would let two readers see two requests.
SINGLE = frozenset(
    b"host content-length transfer-encoding content-type content-encoding expect "
    b"authorization x-api-key anthropic-version idempotency-key x-tidegate-accuracy x-tidegate-allow-downgrade "
    b"x-tidegate-deadline x-tidegate-max-wait-ms x-tidegate-model x-tidegate-priority x-tidegate-provider "
    b"x-tidegate-template".split()
)

CHUNKED = -1  # the length of a body that comes in chunks


class RequestLine(NamedTuple):
    """The first line: `minor` is that of HTTP/1.x; `path` is None until the host of an absolute-form is known."""

    method: str
    minor: int
    target: bytes
    path: bytes | None
    query: bytes


class Head:
    """One request's head. `path` is canonical, `length` the body's length in bytes or CHUNKED.

    `fields` gives the value by lower-case name, the last one where a name is repeated. `memo` is for the application:
    what follows from this head alone. Heads that are alike but for the number in Content-Length share it, so it must
    not depend on that; it lasts as long as their connection.
    """

    method: str
    minor: int
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes]
    length: int = 0
    keep_alive: bool = True
    expects_continue: bool = False

    def __init__(self) -> None:
        self.memo: dict[Any, Any] = {}


class HeadReader:
    """Reads heads for all connections of one server and remembers their lines.

    `max_headers`: how many header lines a request may have. `max_target_bytes`: the longest request target.
    `max_body_bytes`: the largest content-length, 0 for no bound.
    """

    remembered_lines = 1_024
    longest_remembered = 256

    def __init__(self, max_headers: int, max_target_bytes: int, max_body_bytes: int, prefix: bytes = b"") -> None:
        self.prefix = prefix
        self.max_headers = max_headers
        self.max_target_bytes = max_target_bytes
        self.max_body_bytes = max_body_bytes
        self._first_lines: dict[bytes, RequestLine] = {}
        self._lines: dict[bytes, tuple[bytes, bytes]] = {}
        self._names: dict[bytes, bytes] = {}

    def read(self, raw: bytes) -> Head:
        """The head from its bytes, without the empty line that ends it.

        Raises:
            Refusal: it is not a request that this server stands by; the connection has to be closed.
        """
        lines = raw.split(b"\r\n")
        first = lines.pop(0)
        if not first and lines:  # one empty line before a request is to be ignored (RFC 9112 section 2.2)
            first = lines.pop(0)
        if len(lines) > self.max_headers:
            raise Refusal(431, "too_many_headers", f"The request has more than {self.max_headers} headers. Send fewer.")
        head = Head()
        head.method, head.minor, target, path, head.query = self._first_lines.get(first) or self._first_line(first)
        known = self._lines.get
        head.headers = headers = [known(line) or self._line(line) for line in lines]
        head.fields = fields = dict(headers)
        if len(fields) != len(headers):
            _check_repeated(headers)
        self._frame(head, fields)
        if path is None:
            path, head.query = origin_form(target, fields.get(b"host"))
            path = within(path, self.prefix)
        head.path = path
        return head

    def _first_line(self, raw: bytes) -> RequestLine:
        parts = raw.split(b" ")
        if len(parts) != 3 or raw.translate(None, CONTROLS + b"\t") != raw:
            raise BadFraming("the first line is not 'METHOD target HTTP/1.1' with single spaces")
        method, target, version = parts
        name, minor = METHODS.get(method) or _extension(method), VERSIONS.get(version)
        if minor is None:
            raise _bad_version(version)
        if name is None:
            raise _bad_method(method)
        if len(target) > self.max_target_bytes:
            raise target_too_long(self.max_target_bytes)
        path, query = origin_form(target, None) if target[:1] == b"/" else (None, b"")
        path = None if path is None else within(path, self.prefix)
        line = RequestLine(name, minor, target, path, query)
        if not query and path is not None and len(raw) <= self.longest_remembered:
            if len(self._first_lines) >= self.remembered_lines:
                self._first_lines.clear()
            self._first_lines[raw] = line
        return line

    def _line(self, raw: bytes) -> tuple[bytes, bytes]:
        """One header line as ASGI wants it: lower-case name and trimmed value."""
        given, colon, value = raw.partition(b":")
        name = self._names.get(given)
        if name is None or not colon:
            name = self._name(given, colon)
        if not raw.decode("latin-1").isprintable() and value.translate(None, CONTROLS) != value:
            raise BadFraming("a header has a control character, or a line that does not end with CR LF")
        pair = (name, value.strip(b" \t"))
        if name == b"host":
            check_host(pair[1])
        if name not in PASSING and len(raw) <= self.longest_remembered:
            if len(self._lines) >= self.remembered_lines:
                self._lines.clear()
            self._lines[raw] = pair
        return pair

    def _name(self, given: bytes, colon: bytes) -> bytes:
        if given[:1] in (b" ", b"\t"):
            raise BadFraming("a header line begins with white space (folded lines are not accepted)")
        if not colon or not given or given.translate(None, TOKEN):
            raise BadFraming("a header line has no name, no colon, or a character before the colon that no name has")
        name = given.lower()
        if len(given) <= self.longest_remembered:
            if len(self._names) >= self.remembered_lines:
                self._names.clear()
            self._names[given] = name
        return name

    def _frame(self, head: Head, fields: dict[bytes, bytes]) -> None:
        """Read from the fields what frames the message."""
        if b"host" not in fields and head.minor:
            raise BadTarget("HTTP/1.1 requires a Host header", "bad_host")
        length = fields.get(b"content-length")
        if length is not None:
            head.length = self.length(length)
        if b"transfer-encoding" in fields:
            _check_coding(fields, head.minor)
            head.length = CHUNKED
        if b"expect" in fields:
            head.expects_continue = _expects_continue(fields[b"expect"]) and head.minor == 1
        if b"upgrade" in fields and b"websocket" in fields[b"upgrade"].lower():
            raise websocket_refused()
        connection = fields.get(b"connection", b"keep-alive")
        if connection != b"keep-alive" or not head.minor or len(fields) != len(head.headers):
            head.keep_alive = _keeps_alive(head)

    def length(self, value: bytes) -> int:
        """A content-length in bytes, if it is a plain number within the bound."""
        if not value.isdigit() or len(value) > LONGEST_LENGTH or (value[:1] == b"0" and len(value) > 1):
            raise BadFraming("Content-Length is not one plain decimal number", "bad_content_length")
        length = int(value)
        if self.max_body_bytes and length > self.max_body_bytes:
            raise body_too_large(self.max_body_bytes)
        return length


def _check_repeated(headers: list[tuple[bytes, bytes]]) -> None:
    seen = set()
    for name, _ in headers:
        if name in seen and name in SINGLE:
            raise BadFraming(f"there is more than one {name.decode()} header", "repeated_header")
        seen.add(name)


def _keeps_alive(head: Head) -> bool:
    """Whether the connection persists, by all Connection headers; `close` outweighs all else."""
    named = connection_options(head.headers)
    return b"close" not in named and (head.minor == 1 or b"keep-alive" in named)


def connection_options(headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    """What the Connection headers list, in lower case."""
    values = [value for name, value in headers if name == b"connection"]
    if len(values) == 1 and b"," not in values[0]:
        return [values[0].lower()]
    return [option.strip(b" \t") for option in b",".join(values).lower().split(b",")]


def _check_coding(fields: dict[bytes, bytes], minor: int) -> None:
    if minor == 0:
        raise BadFraming("HTTP/1.0 has no Transfer-Encoding", "bad_transfer_encoding")
    if b"content-length" in fields:
        raise BadFraming("it has both Content-Length and Transfer-Encoding", "ambiguous_length")
    if fields[b"transfer-encoding"].lower() != b"chunked":
        raise Refusal(
            501,
            "unsupported_transfer_encoding",
            "The only Transfer-Encoding this server reads is 'chunked'. Send the body so, or with a Content-Length.",
        )


def _expects_continue(value: bytes) -> bool:
    if value.lower() != b"100-continue":
        raise Refusal(417, "unknown_expectation", "The only Expect this server meets is '100-continue'. Leave it out.")
    return True


def websocket_refused() -> Refusal:
    """501: WebSocket is not served (yet); clients are told not to try again."""
    return Refusal(
        501,
        "websocket_not_supported",
        "WebSocket (and so the Realtime API) is not served here. Use the HTTP API, with stream=true for streaming.",
        ((b"x-should-retry", b"false"),),
    )


def _extension(method: bytes) -> str | None:
    """The name of a method that RFC 9110 does not define, if it may be served."""
    is_plain = 0 < len(method) <= LONGEST_METHOD and not method.translate(None, UPPER) and method[:1] != b"-"
    return method.decode("ascii") if is_plain and method not in NEVER else None


def _bad_method(method: bytes) -> Refusal:
    if not method or method.translate(None, TOKEN):
        return BadFraming("the method has a character that no method has")
    known = ", ".join(METHODS.values())
    return Refusal(501, "unsupported_method", f"The method is not served. Use one of {known}, in capital letters.")


def _bad_version(version: bytes) -> Refusal:
    digits = version.removeprefix(b"HTTP/")
    if len(version) == 8 and len(digits) == 3 and digits[1:2] == b"." and (digits[:1] + digits[2:]).isdigit():
        return Refusal(505, "unsupported_http_version", "Only HTTP/1.1 and HTTP/1.0 are served here. Send HTTP/1.1.")
    return BadFraming("the first line does not end with 'HTTP/1.1'")


def target_too_long(bound: int) -> Refusal:
    """414: the request target is over `bound` bytes."""
    message = f"The request target is longer than {bound} bytes. Put large values into the request body."
    return Refusal(414, "uri_too_long", message)


def body_too_large(bound: int) -> Refusal:
    """413: the request body is over `bound` bytes."""
    message = f"The request body is larger than {bound} bytes, the limit of this server. Send a smaller one."
    return Refusal(413, "request_too_large", message)
