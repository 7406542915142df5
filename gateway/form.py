"""A multipart request on its way: its fields known as they come, its files passed on unbuffered (TERMS 14)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from gateway.errors import BadRequest
from gateway.multipart import Field, Parser, boundary_of, is_model
from gateway.objectids import in_json, in_text

CheckIds = Callable[[list[str]], Awaitable[None]]

#: How much of a file is looked at again with what follows it: an id may be cut in two.
_CARRY = 512

#: Fields that decide on something, and of which parsers take the first or the last.
_SINGLE = frozenset({"n", "purpose", "quality", "size", "stream"})


class Form:
    """`fields` has what came so far, and grows while the body passes. `model` is what is decided on: by its field, or
    else by the header (x-tidegate-model). A field that comes later may repeat it, never change it.

    `reads_files`: requests that a file of lines holds may name stored objects as well.
    """

    def __init__(
        self, chunks: AsyncIterator[bytes], content_type: bytes, header: bytes | None, *, reads_files: bool
    ) -> None:
        boundary = boundary_of(content_type)
        self._close = b"\r\n--" + boundary + b"--"
        self._model_part = b"\r\n--" + boundary + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
        self._parser = Parser(boundary)
        self._chunks = chunks
        self._header = None if header is None else header.decode("latin-1")
        self._reads_files = reads_files
        self._held: list[bytes | Field] = []
        self._suspects: list[str] = []
        self._carry = b""
        self._is_patient = False
        self._is_named = False  # a model field came
        self._sent_model = b""  # what goes upstream instead; empty: what the client sent
        self.fields: dict[str, str] = {}
        self.model: str | None = None

    async def peek(self, *, patient: bool) -> None:
        """Reads up to the first file; `patient`: on to the field that names the model, wherever it stands, if no header
        does."""
        self._is_patient = patient and self._header is None
        async for chunk in self._chunks:
            self._held += self._look(chunk)
            if self._parser.has_file and (self._is_named or not self._is_patient):
                break
        else:
            self._parser.finish()
        if self.model is None:
            self.model = self._header

    def send_model(self, name: str, length: int | None) -> int | None:
        """Sends this model's name upstream, and gives the body's length in bytes after that, if it is known."""
        if self._is_named and self.model == name:
            return length
        self._sent_model = name.encode()
        early = [piece for piece in self._held if isinstance(piece, Field) and is_model(piece.name)]
        return length + len(self._sent_model) - len(early[0].value) if early and length is not None else None

    def take_suspects(self) -> list[str]:
        """What came since the last time and may be the id of a stored object."""
        suspects, self._suspects = self._suspects, []
        return suspects

    async def chunks(self, check: CheckIds) -> AsyncIterator[bytes]:
        """The body. Raises BadRequest where it turns out not to be what was decided on, and what `check` raises."""
        pieces, self._held = self._held, []
        while True:
            if self._suspects:
                await check(self.take_suspects())
            out = b"".join(map(self._sent, pieces))
            if out:
                yield out
            chunk = await anext(self._chunks, None)
            if chunk is None:
                break
            pieces = self._look(chunk)
        self._parser.finish()

    def _look(self, chunk: bytes) -> list[bytes | Field]:
        pieces = self._parser.feed(chunk)
        for piece in pieces:
            if isinstance(piece, Field):
                self._note(piece)
            elif self._reads_files and self.fields.get("purpose", "batch") == "batch":
                text = self._carry + piece
                self._suspects += in_json(text, uuids=False)
                self._carry = text[-_CARRY:]
        return pieces

    def _note(self, field: Field) -> None:
        value = field.value.decode("utf-8", "replace")
        if field.name in _SINGLE and field.name in self.fields:
            raise BadRequest(f"The multipart body has two fields '{field.name}'.", param=field.name)
        self.fields[field.name] = value
        self._suspects += in_text(field.value)
        if not is_model(field.name):
            return
        if self._is_named:
            raise BadRequest("The multipart body has two model fields.", param="model")
        self._is_named = True
        if not field.late or self._is_patient:
            self.model = value
        elif value != self._header:
            why = "Put it before the file" if self._header is None else "It must say what x-tidegate-model says"
            raise BadRequest(f"The multipart body has a model field behind its file. {why}.", param="model")

    def _sent(self, piece: bytes | Field) -> bytes:
        if isinstance(piece, Field):
            return self._sent_model if self._sent_model and is_model(piece.name) else piece.value
        if self._sent_model and piece == self._close and not self._is_named:
            return self._model_part + self._sent_model + piece
        return piece
