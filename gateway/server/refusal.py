"""Refusal: a request that the wire itself answers, since it never becomes one for the application.

Refusal
+-- BadTarget     the path, query or Host has no safe canonical form (paths.py)
+-- BadFraming    head or body can be read in more than one way, or in none
+-- BodyRefused   the body is too large, or in an encoding that is not understood (bodies.py)
"""

import json
import re
import time
from http import HTTPStatus

from gateway.errors import Dialect, body_of
from gateway.ids import Ids
from gateway.routes import spelt

#: The path of a first line, also of one that is refused.
_TARGET = re.compile(rb"\s*[^\s]{1,64} (?:https?://[^/\s]*)?(/[^\s?]*)", re.IGNORECASE)


class Refusal(Exception):  # noqa: N818 -- an answer, not a fault of ours
    """An answer to the client: `status`, machine-readable `code`, and a `message` of what, why and what to do."""

    def __init__(self, status: int, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        self.param = None

    @property
    def type(self) -> str:
        """As OpenAI's clients read it."""
        return "invalid_request_error" if self.status < 500 or self.status in (501, 505) else "server_error"

    def render(self, defaults: list[tuple[bytes, bytes]], path: bytes) -> bytes:
        """The whole HTTP/1.1 answer, in the dialect of the path, with an id to ask with; `defaults` are headers that
        each answer of this server carries."""
        request_id = Ids().new(time.time_ns())
        body = json.dumps(body_of(self, dialect_of(path), request_id)).encode()
        headers = [*defaults, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers += [(b"connection", b"close"), (b"x-request-id", request_id.encode()), *self.headers]
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode()]
        lines += [b"%b: %b" % pair for pair in headers]
        return b"\r\n".join([*lines, b"", body])


def dialect_of(path: bytes) -> Dialect:
    """How callers of a path read errors, as far as the path alone tells."""
    path = spelt(path)
    if path.startswith(b"/v1/messages"):
        return "anthropic"
    return "plain" if path.startswith(b"/workers/") else "openai"


def path_in(raw: bytes) -> bytes:
    """The path in the beginning of a request that may not be one, or nothing."""
    found = _TARGET.match(raw[:16_384])
    return found[1] if found is not None else b""


class BadFraming(Refusal):
    """400: the bytes are not one HTTP/1.1 request with one reading."""

    def __init__(self, reason: str, code: str = "malformed_request") -> None:
        super().__init__(400, code, f"The request is not valid HTTP/1.1: {reason}. Nothing was processed.")


class BadTarget(Refusal):
    """400: the path, query or Host has no safe canonical form; `reason` says what is wrong."""

    def __init__(self, reason: str, code: str = "bad_request_target") -> None:
        super().__init__(400, code, f"The request target was refused: {reason}. Send a plain absolute path.")
        self.reason = reason


class BodyRefused(Refusal):
    """400, 413 or 415: the request body is damaged, too large, or in an unknown encoding."""
