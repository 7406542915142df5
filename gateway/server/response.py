"""ResponseHeads: turns an application's status and headers into the bytes of a response head.

Header names are checked once and remembered. Values are checked all at once, by counting line ends: a value with a CR,
LF or NUL in it would let an upstream or a client write headers or whole responses of its own (response splitting).

Answers have few sets of names, so what a set means is worked out once: most heads are looked up, and joined in C.
"""

from collections.abc import Sequence
from http import HTTPStatus
from operator import itemgetter

from gateway.server.head import TOKEN

Headers = Sequence[tuple[bytes, bytes]]

# What a response header means to the server. PLAIN means nothing, and is the only one that is false.
PLAIN, LENGTH, CODING, CONNECTION, DEFAULT = range(5)
KINDS = {b"content-length": LENGTH, b"transfer-encoding": CODING, b"connection": CONNECTION}

KNOWN_STATUSES = frozenset(HTTPStatus)
UNKNOWN_LENGTH = -1

_NAME = itemgetter(0)
_LINE = b": ".join
_NOT_PLAIN = -2
_LENGTHS = "A response needs one decimal content-length at most."


class ResponseHeads:
    """Composes heads for all connections of one server; `defaults` are added unless the application sets them."""

    remembered_names = 512
    remembered_sets = 512

    def __init__(self) -> None:
        self._defaults: list[tuple[bytes, bytes]] = []
        self._starts: dict[int, bytes] = {}
        self._names: dict[bytes, int] = dict(KINDS)
        #: By the names of a head: where its content-length is, UNKNOWN_LENGTH, or _NOT_PLAIN: more is to be looked at.
        self._sets: dict[tuple[bytes, ...], int] = {}

    def compose(
        self, status: int, headers: Headers, defaults: list[tuple[bytes, bytes]]
    ) -> tuple[list[bytes], int, bool]:
        """(lines of the head, its content-length or UNKNOWN_LENGTH, whether it asks to close).

        The lines are not checked yet: `seal` does that. The application's connection and transfer-encoding are not
        among them, since framing is the server's business.

        Raises:
            RuntimeError: a name, the content-length or the status can't be sent.
        """
        if defaults is not self._defaults:
            self._use_defaults(defaults)
        where = self._sets.get(tuple(map(_NAME, headers)), _NOT_PLAIN)
        if where != _NOT_PLAIN and status != 204:
            lines = [self._starts.get(status) or self._start(status), *map(_LINE, headers)]
            return lines, UNKNOWN_LENGTH if where < 0 else self._length(headers[where][1]), False
        return self._compose(status, headers)

    def _compose(self, status: int, headers: Headers) -> tuple[list[bytes], int, bool]:
        """Name by name."""
        length, where, is_plain = UNKNOWN_LENGTH, UNKNOWN_LENGTH, True
        closes = False
        replaced: frozenset[bytes] | None = None
        lines = [self._starts.get(status) or self._start(status)]
        names = self._names.get
        for index, (name, value) in enumerate(headers):
            kind = names(name)
            if kind is None:
                kind = self._learn(name)
            if kind:
                is_plain = is_plain and kind == LENGTH
                if kind == LENGTH:
                    if length != UNKNOWN_LENGTH:
                        raise RuntimeError(_LENGTHS)
                    length, where = self._length(value), index
                    if status == 204:  # must have none (RFC 9110 section 8.6)
                        continue
                elif kind == DEFAULT:
                    replaced = (replaced or frozenset()) | {name.lower()}
                    lines[0] = self._start(status, replaced)
                elif self._is_close(kind, value):
                    closes = True
                    continue
                else:
                    continue
            lines.append(_LINE((name, value)))
        if is_plain and len(self._sets) < self.remembered_sets:
            self._sets[tuple(map(_NAME, headers))] = where
        return lines, length, closes

    @staticmethod
    def _length(value: bytes) -> int:
        if not value.isdigit():
            raise RuntimeError(_LENGTHS)
        return int(value)

    @staticmethod
    def _is_close(kind: int, value: bytes) -> bool:
        if kind == CODING and value.lower() != b"chunked":
            raise RuntimeError("The only transfer-encoding of a response is chunked.")
        return kind == CONNECTION and b"close" in value.lower()

    def seal(self, lines: list[bytes]) -> bytes:
        """The head's bytes, its end included. The first of the lines is the status and the defaults, with their ends.

        Raises:
            RuntimeError: a value has a line end or NUL in it.
        """
        first = lines[0]
        expected = 2 * (first.count(b"\n") + len(lines))
        raw = first + b"\r\n".join(lines[1:]) + (b"\r\n\r\n" if len(lines) > 1 else b"\r\n")
        if len(raw) - len(raw.translate(None, b"\r\n\0")) != expected:
            raise RuntimeError("A response header has a CR, LF or NUL in its value.")
        return raw

    def _use_defaults(self, defaults: list[tuple[bytes, bytes]]) -> None:
        """Take new default headers (uvicorn makes a new list each second, for the date)."""
        self._defaults = defaults
        self._starts.clear()
        self._sets.clear()
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
