"""Knows multipart/form-data bodies: their fields and files."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.demo.refusal import ProviderError

BOUNDARY = re.compile(rb'boundary="?([^";,]+)"?', re.IGNORECASE)
NAME = re.compile(rb'[; ]name="([^"]*)"')
FILENAME = re.compile(rb'filename="([^"]*)"')


@dataclass(slots=True)
class Part:
    """One part. `filename` is None for a plain field."""

    name: str
    filename: str | None
    data: bytes

    @property
    def text(self) -> str:
        """The part's value, where it is a plain field."""
        return self.data.decode("utf-8", "replace")


@dataclass(slots=True)
class Form:
    """All parts of a body, in order."""

    parts: list[Part]

    def field(self, name: str, default: str = "") -> str:
        """The first plain field called `name`."""
        return next((part.text for part in self.parts if part.name == name and part.filename is None), default)

    def files(self, name: str) -> list[Part]:
        """The files called `name` or `name[]`."""
        return [part for part in self.parts if part.name in (name, f"{name}[]") and part.filename is not None]

    def file(self, name: str) -> Part:
        """The first file called `name`. Raises ProviderError 400 where there is none."""
        found = self.files(name)
        if not found:
            raise ProviderError(400, f"'{name}' is a required property", param=name)
        return found[0]


def read_form(content_type: bytes, body: bytes) -> Form:
    """Reads a form. Raises ProviderError 400 where it is not one, or does not end."""
    found = BOUNDARY.search(content_type)
    if not content_type.lower().startswith(b"multipart/form-data") or found is None:
        raise ProviderError(400, "Expected a multipart/form-data body.")
    marker = b"--" + found.group(1)
    head, *sections = (b"\r\n" + body).split(b"\r\n" + marker)
    if head.strip() or not sections or not sections[-1].startswith(b"--"):
        raise ProviderError(400, "The multipart body is not complete.")
    return Form([_part(section) for section in sections[:-1]])


def _part(section: bytes) -> Part:
    head, _, data = section.partition(b"\r\n\r\n")
    name, filename = NAME.search(head), FILENAME.search(head)
    if name is None:
        raise ProviderError(400, "A part of the multipart body has no name.")
    return Part(
        name.group(1).decode("utf-8", "replace"),
        None if filename is None else filename.group(1).decode("utf-8", "replace"),
        data,
    )
