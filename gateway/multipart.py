"""The fields in front of the file in a multipart body that is otherwise passed through unread (TERMS 14)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from gateway.errors import BadRequest

#: How far we look for the model before the body has to be on its way.
PEEK_BYTES = 65_536

_NAME = re.compile(rb'(?i)content-disposition:[^\r\n]*?[ ;]name="?([^"\r\n;]*)"?')
_FILENAME = re.compile(rb"(?i)content-disposition:[^\r\n]*filename")
_SECOND_MODEL = re.compile(rb'(?i)content-disposition:[^\r\n]*[ ;]name="?model"?[\r\n;]')
_CARRY = 256


def boundary_of(content_type: bytes) -> bytes:
    """The boundary named by a multipart content type. Raises BadRequest."""
    match = re.search(rb'(?i)boundary="?([^";,\s]{1,70})"?', content_type)
    if match is None:
        raise BadRequest("The multipart content-type has no boundary; let your HTTP library set the header.")
    return match[1]


def without_boundary(body: bytes, content_type: bytes) -> bytes:
    """A body's bytes with the boundary taken out: HTTP libraries make a new one each time they send the same form."""
    match = re.search(rb'(?i)boundary="?([^";,\s]{1,70})"?', content_type)
    return body if match is None else body.replace(match[1], b"")


class Peeked:
    """The fields that came before the first file, and the whole body again as an iterator."""

    def __init__(self, head: bytes, rest: AsyncIterator[bytes], fields: dict[str, str], span: tuple[int, int]) -> None:
        self._head = head
        self._rest = rest
        self.fields = fields
        self._model_span = span
        self.grown = 0  # bytes by which the body became longer

    def set_model(self, name: str) -> None:
        """Sends another model's name than the client did."""
        begin, end = self._model_span
        if end == 0:
            return
        value = name.encode()
        self.grown = len(value) - (end - begin)
        self._head = self._head[:begin] + value + self._head[end:]
        self._model_span = (begin, begin + len(value))

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body. A second model field behind the file is refused: it was not what was decided on."""
        yield self._head
        carry = self._head[self._model_span[1] :][-_CARRY:]
        async for chunk in self._rest:
            window = carry + chunk
            if _SECOND_MODEL.search(window):
                raise BadRequest(
                    "The multipart body has a model field behind its file. Put it before the file, once.", param="model"
                )
            carry = window[-_CARRY:]
            yield chunk


async def peek(chunks: AsyncIterator[bytes], boundary: bytes) -> Peeked:
    """Reads until the first file part, the end, or PEEK_BYTES."""
    head = bytearray()
    async for chunk in chunks:
        head += chunk
        if len(head) >= PEEK_BYTES or _FILENAME.search(head):
            break
    fields, span = _fields(bytes(head), boundary)
    return Peeked(bytes(head), chunks, fields, span)


def _fields(head: bytes, boundary: bytes) -> tuple[dict[str, str], tuple[int, int]]:
    delimiter = b"--" + boundary
    fields: dict[str, str] = {}
    span = (0, 0)
    position = head.find(delimiter)
    while position >= 0:
        begin = head.find(b"\r\n\r\n", position)
        end = head.find(b"\r\n" + delimiter, begin)
        name = _NAME.search(head, position, begin if begin >= 0 else len(head))
        if begin < 0 or end < 0 or name is None or _FILENAME.search(head, position, begin):
            break
        key = name[1].decode("utf-8", "replace")
        if key == "model":
            if span != (0, 0):
                raise BadRequest("The multipart body has two model fields.", param="model")
            span = (begin + 4, end)
        fields[key] = head[begin + 4 : end].decode("utf-8", "replace")
        position = end + 2
    return fields, span
