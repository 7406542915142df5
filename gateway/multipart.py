"""multipart/form-data read strictly as it passes: in the one way that no parser upstream reads differently.

What other parsers repair or ignore (folded headers, text before the first part or behind the last, encoded parts, names
in more than one spelling) is refused: a field that we do not see could name another model than the one decided on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.errors import BadRequest

#: Headers of one part, and a part that is no file, in bytes; parts of one body.
MOST_HEADERS = 8_192
MOST_FIELD = 1_048_576
MOST_PARTS = 1_000

_TOKEN = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PARAMETERS = rb"(?:[ \t]*;[ \t]*" + _TOKEN + rb'=(?:"(?:[^"\\\r\n]|\\.)*"|[^\s;"]+))*'
_CONTENT_TYPE = re.compile(rb"(?i)multipart/form-data(" + _PARAMETERS + rb")[ \t;]*")
_DISPOSITION = re.compile(rb"(?i)form-data(" + _PARAMETERS + rb")[ \t;]*")
_PARAMETER = re.compile(rb";[ \t]*(" + _TOKEN + rb')=(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]+))')
_BOUNDARY = re.compile(rb"[A-Za-z0-9'()+_,./:=?-]{1,70}")
_HEADER = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\r\n\x00]*)")
_PLAIN_ENCODINGS = (b"7bit", b"8bit", b"binary")


@dataclass(slots=True)
class Field:
    """A part that is no file, whole: `value` is its bytes as they came; `late`: behind a file."""

    name: str
    value: bytes
    late: bool


def boundary_of(content_type: bytes) -> bytes:
    """The boundary named by a multipart content type. Raises BadRequest."""
    match = _CONTENT_TYPE.fullmatch(content_type.strip())
    found = [value for name, value in _parameters(match[1]) if name == b"boundary"] if match is not None else []
    if len(found) != 1 or _BOUNDARY.fullmatch(found[0]) is None:
        raise BadRequest("The multipart content-type has no usable boundary; let your HTTP library set the header.")
    return found[0]


class Parser:
    """Cuts a body into what may go on at once and whole fields. Together they are the body, byte for byte."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._pending = b"\r\n"  # so that the first delimiter looks like the others
        self._at = 0  # up to where `_pending` was given out
        self._invented = 2  # bytes of it that did not come
        self._read = self._begin
        self._name = ""
        self._parts = 0
        self.has_file = False
        self.ended = False

    def feed(self, chunk: bytes) -> list[bytes | Field]:
        """What of the body is known to be complete now. Raises BadRequest."""
        self._pending += chunk
        out: list[bytes | Field] = []
        while (piece := self._read()) is not None:
            if self._invented and isinstance(piece, bytes) and piece:
                piece, self._invented = piece[self._invented :], 0
            if piece:
                out.append(piece)
        self._pending, self._at = self._pending[self._at :], 0
        return out

    def finish(self) -> None:
        """The body ended here. Raises BadRequest if the form did not."""
        if not self.ended:
            raise _refusal("it ends in the middle")

    def _take(self, end: int) -> bytes:
        taken, self._at = self._pending[self._at : end], end
        return taken

    def _begin(self) -> bytes | Field | None:
        """The delimiter in front of a part, and what follows it on its line."""
        if self._invented and self._pending.startswith(b"\r\n\r\n--"):  # an empty line before the first is allowed
            self._at, self._invented = 2, 0
        end = self._at + len(self._delimiter) + 2
        if len(self._pending) < end:
            return None
        if not self._pending.startswith(self._delimiter, self._at):
            raise _refusal("it does not begin with its boundary")
        mark = self._pending[end - 2 : end]
        if mark == b"--":
            self.ended, self._read = True, self._epilogue
        elif mark == b"\r\n":
            self._read = self._headers
        else:
            raise _refusal("its boundary is followed by something else on the same line")
        return self._take(end)

    def _headers(self) -> bytes | Field | None:
        end = self._pending.find(b"\r\n\r\n", self._at)
        if (len(self._pending) if end < 0 else end) - self._at > MOST_HEADERS:
            raise _refusal(f"a part's headers are longer than {MOST_HEADERS:,} bytes")
        if end < 0:
            return None
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise _refusal(f"it has more than {MOST_PARTS:,} parts")
        self._name, is_file = _disposition(self._pending[self._at : end])
        self.has_file = self.has_file or is_file
        self._read = self._file if is_file else self._field
        return self._take(end + 4)

    def _field(self) -> bytes | Field | None:
        end = self._pending.find(self._delimiter, self._at)
        if (len(self._pending) if end < 0 else end) - self._at > MOST_FIELD:
            raise _refusal(f"the field '{self._name[:40]}' is longer than {MOST_FIELD:,} bytes and no file")
        if end < 0:
            return None
        self._read = self._begin
        return Field(self._name, self._take(end), self.has_file)

    def _file(self) -> bytes | Field | None:
        end = self._pending.find(self._delimiter, self._at)
        if end >= 0:
            self._read = self._begin
            return self._take(end)
        ready = len(self._pending) - len(self._delimiter) + 1
        return self._take(ready) if ready > self._at else None

    def _epilogue(self) -> bytes | Field | None:
        if self._pending[self._at :].strip(b"\r\n"):
            raise _refusal("there is something behind its end")
        return self._take(len(self._pending)) or None


def _disposition(raw: bytes) -> tuple[str, bool]:
    """A part's name, and whether it is a file."""
    headers = [_HEADER.fullmatch(line) for line in raw.split(b"\r\n")]
    known = [(found[1].lower(), found[2].strip()) for found in headers if found is not None]
    given = [value for name, value in known if name == b"content-disposition"]
    match = _DISPOSITION.fullmatch(given[0]) if len(given) == 1 and len(known) == len(headers) else None
    if match is None:
        raise _refusal("a part has no plain content-disposition: form-data; name=...")
    parameters = _parameters(match[1])
    names = [value for name, value in parameters if name.rstrip(b"*") == b"name"]
    if len(names) != 1 or b"\\" in names[0] or b"name*" in dict(parameters):
        raise _refusal("a part has not exactly one plain name")
    name = names[0].decode("utf-8", "replace")
    is_file = any(parameter.startswith(b"filename") for parameter, _ in parameters)
    encoded = any(name == b"content-transfer-encoding" and v.lower() not in _PLAIN_ENCODINGS for name, v in known)
    if encoded or (is_file and is_model(name)):
        raise _refusal(f"the part '{name[:40]}' is encoded, or a file where a field belongs")
    return name, is_file


def is_model(name: str) -> bool:
    """Whether a field of that name says which model is called, for whoever reads names loosely, too."""
    return name.strip().lower() == "model"


def without_boundary(body: bytes, content_type: bytes) -> bytes:
    """A body's bytes with the boundary taken out: HTTP libraries make a new one each time they send the same form."""
    match = re.search(rb'(?i)boundary="?([^";,\s]{1,70})"?', content_type)
    return body if match is None else body.replace(match[1], b"")


def _parameters(raw: bytes) -> list[tuple[bytes, bytes]]:
    return [(found[1].lower(), found[2] if found[3] is None else found[3]) for found in _PARAMETER.finditer(raw)]


def _refusal(why: str) -> BadRequest:
    return BadRequest(f"The multipart body is not acceptable: {why}.")
