"""ResponseHeads: turns an application's status and headers into the bytes of a response head.

Header names are checked once and remembered; values are checked all at once, by counting line ends: a value with a CR,
LF or NUL in it would let an upstream or a client write headers or whole responses of its own (response splitting).
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

from gateway.server.head import TOKEN

# What a response header means for framing. PLAIN means nothing, and is the only one that is false.
PLAIN, LENGTH, CODING, CONNECTION, DEFAULT = range(5)
KINDS = {b"content-length": LENGTH, b"transfer-encoding": CODING, b"connection": CONNECTION}


class ResponseHead(NamedTuple):
    """The head so far, without framing lines and without its end. `length` is the content-length given, if any."""

    raw: bytes
    length: int | None
    closes: bool


class ResponseHeads:
    """Composes heads for all connections of one server; `defaults` are added unless the application sets them."""

    remembered_names = 512

    def __init__(self) -> None:
        self._defaults: list[tuple[bytes, bytes]] = []
        self.default_lines = b""
        self._starts: dict[int, bytes] = {}
        self._names: dict[bytes, int] = dict(KINDS)

    def use_defaults(self, defaults: list[tuple[bytes, bytes]]) -> None:
        """Take new default headers (uvicorn makes a new list each second, for the date)."""
        self._defaults = defaults
        self.default_lines = b"".join(b"%b: %b\r\n" % pair for pair in defaults)
        self._starts.clear()
        self._names = dict(KINDS) | {name.lower(): DEFAULT for name, _ in defaults}

    def compose(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], defaults: list[tuple[bytes, bytes]]
    ) -> ResponseHead:
        """The head of a response. The application's transfer-encoding is dropped: framing is the server's business.

        Raises:
            RuntimeError: a name, a value or the content-length can't be sent as a header.
        """
        if defaults is not self._defaults:
            self.use_defaults(defaults)
        length = None
        closes = False
        given: set[bytes] = set()
        count = 0
        lines = [self._starts.get(status) or self._start(status)]
        names = self._names.get
        for name, value in headers:
            kind = names(name)
            if kind is None:
                kind = self._learn(name)
            if kind:
                if kind == LENGTH:
                    length = _length(value, length)
                elif kind == CODING:
                    _check_coding(value)
                    continue
                elif kind == CONNECTION:
                    closes = closes or b"close" in value.lower()
                    continue
                else:
                    given.add(name.lower())
            lines += (name, b": ", value, b"\r\n")
            count += 1
        if given:
            lines[0] = self._start(status, given)
        raw = b"".join(lines)
        count += lines[0].count(b"\n")
        if raw.count(b"\n") != count or raw.count(b"\r") != count or b"\0" in raw:
            raise RuntimeError("A response header has a CR, LF or NUL in its value.")
        return ResponseHead(raw, length, closes)

    def _start(self, status: int, without: set[bytes] | None = None) -> bytes:
        """The status line and the default headers; remembered unless some of these are left out."""
        if not 200 <= status <= 599:
            raise RuntimeError(f"{status} is not the status of a final response.")
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = ""
        line = f"HTTP/1.1 {status} {phrase}\r\n".encode()
        if without is not None:
            kept = (pair for pair in self._defaults if pair[0].lower() not in without)
            return line + b"".join(b"%b: %b\r\n" % pair for pair in kept)
        start = self._starts[status] = line + self.default_lines
        return start

    def _learn(self, name: bytes) -> int:
        if not name or name.translate(None, TOKEN):
            raise RuntimeError(f"{name!r} is not a header name.")
        kind = self._names.get(name.lower(), PLAIN)
        if len(self._names) >= self.remembered_names:
            self.use_defaults(self._defaults)
        self._names[name] = kind
        return kind


def _length(value: bytes, before: int | None) -> int:
    if before is not None or not value.isdigit():
        raise RuntimeError("A response needs one decimal content-length at most.")
    return int(value)


def _check_coding(value: bytes) -> None:
    if value.lower() != b"chunked":
        raise RuntimeError("The only transfer-encoding of a response is chunked.")
