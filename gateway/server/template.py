"""HeadTemplate: the last head of one connection, by which its next one is read.

An SDK that keeps its connection sends the same head again and again, but for the number in Content-Length. Comparing
the bytes with the last head costs a quarter of reading them. The template belongs to its connection and ends with it,
so a credential in it is never compared with another client's.
"""

from gateway.server.head import Head, HeadReader

MOST_MISSES = 4  # heads unlike the one before, after which a client is taken to vary them
NAME = b"\r\ncontent-length:"


class HeadTemplate:
    """Reads the heads of one connection, each exactly as `reader` would."""

    __slots__ = ("_after", "_before", "_head", "_misses", "_place", "_reader")

    def __init__(self, reader: HeadReader) -> None:
        self._reader = reader
        self._head: Head | None = None
        self._misses = -1  # the first head has none to be like
        self._before = self._after = b""
        self._place = -1

    def read(self, raw: bytes) -> Head:
        """The head from its bytes; raises what `HeadReader.read` raises."""
        if self._head is not None and raw.startswith(self._before) and raw.endswith(self._after):
            number = raw[len(self._before) : len(raw) - len(self._after)]
            if number.isdigit() if self._place >= 0 else raw == self._before:
                self._misses = 0
                return self._like(self._head, number)
        head = self._reader.read(raw)
        self._misses += 1
        if 0 < self._misses <= MOST_MISSES:
            self._keep(raw, head)
        return head

    def _like(self, model: Head, number: bytes) -> Head:
        """The same head with another length."""
        head = Head()
        head.method, head.minor, head.path, head.query = model.method, model.minor, model.path, model.query
        head.keep_alive, head.expects_continue = model.keep_alive, model.expects_continue
        head.memo = model.memo
        head.headers = model.headers.copy()
        head.fields = model.fields.copy()
        if self._place >= 0:
            head.length = self._reader.length(number)
            head.fields[b"content-length"] = number
            head.headers[self._place] = (b"content-length", number)
        else:
            head.length = model.length
        return head

    def _keep(self, raw: bytes, head: Head) -> None:
        self._head = Head()  # a copy, since an application may change what it is given
        vars(self._head).update(vars(head), headers=head.headers.copy(), fields=head.fields.copy())
        number = head.fields.get(b"content-length")
        if number is None:
            self._before, self._after, self._place = raw, b"", -1
            return
        value_at = raw.lower().index(NAME) + len(NAME)
        start = raw.index(number, value_at)
        self._before, self._after = raw[:start], raw[start + len(number) :]
        self._place = head.headers.index((b"content-length", number))
