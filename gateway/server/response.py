"""ResponseHeads: turns an application's status and headers into the bytes of a response head.

Header names are checked once and remembered. Values are checked all at once, by counting line ends: a value with a CR,
LF or NUL in it would let an upstream or a client write headers or whole responses of its own (response splitting).
"""

from collections.abc import Iterable
from http import HTTPStatus

from gateway.server.head import TOKEN

Headers = Iterable[tuple[bytes, bytes]]

# What a response header means to the server. PLAIN means nothing, and is the only one that is false.
PLAIN, LENGTH, CODING, CONNECTION, DEFAULT = range(5)
KINDS = {b"content-length": LENGTH, b"transfer-encoding": CODING, b"connection": CONNECTION}

KNOWN_STATUSES = frozenset(HTTPStatus)
UNKNOWN_LENGTH = -1


class ResponseHeads:
    """Composes heads for all connections of one server; `defaults` are added unless the application sets them."""

    remembered_names = 512

    def __init__(self) -> None:
        self._defaults: list[tuple[bytes, bytes]] = []
        self._starts: dict[int, bytes] = {}
        self._names: dict[bytes, int] = dict(KINDS)

    def compose(
        self, status: int, headers: Headers, defaults: list[tuple[bytes, bytes]]
    ) -> tuple[list[bytes], int, bool]:
        """(parts of the head, its content-length or UNKNOWN_LENGTH, whether it asks to close).

        The parts are not checked yet: `seal` does that. The application's connection and transfer-encoding are not
        among them, since framing is the server's business.

        Raises:
            RuntimeError: a name, the content-length or the status can't be sent.
        """
        if defaults is not self._defaults:
            self._use_defaults(defaults)
        length = UNKNOWN_LENGTH
        closes = False
        replaced: frozenset[bytes] | None = None
        parts = [self._starts.get(status) or self._start(status)]
        names = self._names.get
        for name, value in headers:
            kind = names(name)
            if kind is None:
                kind = self._learn(name)
            if kind:
                if kind == LENGTH:
                    if length != UNKNOWN_LENGTH or not value.isdigit():
                        raise RuntimeError("A response needs one decimal content-length at most.")
                    length = int(value)
                    if status == 204:  # must have none (RFC 9110 section 8.6)
                        continue
                elif kind == DEFAULT:
                    replaced = (replaced or frozenset()) | {name.lower()}
                    parts[0] = self._start(status, replaced)
                elif self._is_close(kind, value):
                    closes = True
                    continue
                else:
                    continue
            parts += (name, b": ", value, b"\r\n")
        return parts, length, closes

    @staticmethod
    def _is_close(kind: int, value: bytes) -> bool:
        if kind == CODING and value.lower() != b"chunked":
            raise RuntimeError("The only transfer-encoding of a response is chunked.")
        return kind == CONNECTION and b"close" in value.lower()

    def seal(self, parts: list[bytes]) -> bytes:
        """The head's bytes, its end included. Behind the first part, each line is four parts.

        Raises:
            RuntimeError: a value has a line end or NUL in it.
        """
        expected = 2 * (parts[0].count(b"\n") + len(parts) // 4 + 1)
        parts.append(b"\r\n")
        raw = b"".join(parts)
        if len(raw) - len(raw.translate(None, b"\r\n\0")) != expected:
            raise RuntimeError("A response header has a CR, LF or NUL in its value.")
        return raw

    def _use_defaults(self, defaults: list[tuple[bytes, bytes]]) -> None:
        """Take new default headers (uvicorn makes a new list each second, for the date)."""
        self._defaults = defaults
        self._starts.clear()
        self._names = KINDS | {name.lower(): DEFAULT for name, _ in defaults}

    def _start(self, status: int, replaced: frozenset[bytes] | None = None) -> bytes:
        """The status line and the default headers; remembered unless some of these are replaced."""
        if not 200 <= status <= 599:
            raise RuntimeError(f"{status} is not the status of a final response.")
        phrase = HTTPStatus(status).phrase if status in KNOWN_STATUSES else ""
        start = f"HTTP/1.1 {status} {phrase}\r\n".encode()
        start += b"".join(b"%b: %b\r\n" % pair for pair in self._defaults if pair[0].lower() not in (replaced or ()))
        if replaced is None:
            self._starts[status] = start
        return start

    def _learn(self, name: bytes) -> int:
        if not name or name.translate(None, TOKEN):
            raise RuntimeError(f"{name!r} is not a header name.")
        if len(self._names) >= self.remembered_names:
            self._use_defaults(self._defaults)
        kind = self._names[name] = self._names.get(name.lower(), PLAIN)
        return kind
