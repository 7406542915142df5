"""Every refusal the gateway can give, and the one place where it is put into words.

    GatewayError
    |-- CallerError            what was asked can't be done as asked
    |   |-- BadRequest           400 invalid_request_error
    |   |-- InvalidKey           401 invalid_api_key (unknown, revoked and expired look alike)
    |   |-- Forbidden            403 permission_error
    |   |-- NotFound             404 not_found
    |   |   `-- ModelNotFound      404 model_not_found
    |   |-- MethodNotAllowed     405
    |   |-- Conflict             409, never retried
    |   |-- TooLarge             413
    |   |-- UnsupportedMedia     415
    |   `-- NotOffered           501 (WebSocket, Realtime)
    |-- LimitError             a rule of ours says not now
    |   |-- RateLimited          429 rate_limit_exceeded
    |   |-- OverBudget           429 insufficient_quota, never retried
    |   `-- QueueFull            429 queue_full
    |-- UpstreamFailure        the provider's fault
    |   |-- BadUpstream          502
    |   |-- Relayed              the provider's own status, in our words
    |   |-- Unavailable          503
    |   `-- UpstreamTimedOut     504
    |-- DeadlineExceeded       504, the caller's own deadline
    `-- Overloaded             503, the gateway's own

An error is drawn once, by `render`, in the dialect of the caller. `fault` says whose it is in metrics and logs.
Body shapes: ../docs/errors.md; sources: the providers' own API references.
"""

# The words a caller reads in a log (BadRequest, RateLimited) say more without "Error" behind each.
# ruff: noqa: N818

from __future__ import annotations

import math
from typing import ClassVar, Literal, Protocol

import orjson

Dialect = Literal["openai", "anthropic", "plain"]
Header = tuple[bytes, bytes]

#: Anthropic's error types by status (https://docs.anthropic.com/en/api/errors).
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class GatewayError(Exception):
    """A refusal. `message` says what was refused, by which rule, and what to do; `retry_after_s` is seconds."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    type: str = "api_error"
    fault: ClassVar[str] = "gateway"
    should_retry: bool | None = None  # None: the SDK's own rule by status

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        headers: tuple[Header, ...] = (),
        policy: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = headers
        self.policy = policy
        if code is not None:
            self.code = code
        if should_retry is not None:
            self.should_retry = should_retry


class CallerError(GatewayError):
    status = 400
    type = "invalid_request_error"
    fault = "caller"


class BadRequest(CallerError):
    code = "invalid_request"


class InvalidKey(CallerError):
    status = 401
    code = "invalid_api_key"


class Forbidden(CallerError):
    status = 403
    code = "permission_denied"
    type = "permission_error"


class NotFound(CallerError):
    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(CallerError):
    status = 405
    code = "method_not_allowed"


class Conflict(CallerError):
    status = 409
    code = "conflict"
    should_retry = False


class TooLarge(CallerError):
    status = 413
    code = "request_too_large"


class UnsupportedMedia(CallerError):
    status = 415
    code = "unsupported_media_type"


class NotOffered(CallerError):
    status = 501
    code = "not_supported"
    should_retry = False


class LimitError(GatewayError):
    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"
    fault = "policy"


class RateLimited(LimitError):
    type = "requests"


class OverBudget(LimitError):
    code = "insufficient_quota"
    type = "insufficient_quota"
    should_retry = False


class QueueFull(LimitError):
    code = "queue_full"


class UpstreamFailure(GatewayError):
    status = 502
    code = "upstream_error"
    fault = "provider"


class BadUpstream(UpstreamFailure):
    code = "bad_upstream_answer"


class Unavailable(UpstreamFailure):
    status = 503
    code = "upstream_unavailable"


class UpstreamTimedOut(UpstreamFailure):
    status = 504
    code = "upstream_timeout"


class DeadlineExceeded(GatewayError):
    status = 504
    code = "deadline_exceeded"
    fault = "caller"
    should_retry = False  # the same deadline will not come back


class Relayed(UpstreamFailure):
    """A provider's own refusal whose words can't be passed on as they came; its status and retry headers can."""

    def __init__(self, message: str, status: int, headers: tuple[Header, ...]) -> None:
        super().__init__(message, code=f"upstream_{status}", headers=headers)
        self.status = status  # type: ignore[misc]  # of every other error the class says it
        if status == 429:
            self.type = "rate_limit_error"
        elif status < 500:
            self.type = "invalid_request_error"


class Overloaded(GatewayError):
    status = 503
    code = "gateway_overloaded"


class Internal(GatewayError):
    """What an unexpected exception becomes: its text stays in our log, the caller gets the id to ask with."""

    def __init__(self) -> None:
        super().__init__("The gateway failed to handle this call. Retry it; if it persists, report the request id.")


def render(error: GatewayError, dialect: Dialect, request_id: str) -> tuple[int, list[Header], bytes]:
    """The whole answer to a refused call: status, headers, body."""
    headers: list[Header] = [(b"content-type", b"application/json")]
    if error.retry_after_s is not None:
        # Whole seconds for old clients, milliseconds for the SDKs; never earlier than true.
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(error.retry_after_s * 1000))))
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    headers.extend(error.headers)
    return error.status, headers, orjson.dumps(body_of(error, dialect, request_id))


class Worded(Protocol):
    """What the words of an error are made from."""

    @property
    def status(self) -> int: ...
    @property
    def code(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def param(self) -> str | None: ...


def body_of(error: Worded, dialect: Dialect, request_id: str) -> dict[str, object]:
    """The error's body in one dialect, as a mapping."""
    if dialect == "openai":
        shape = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        return {"error": shape}
    if dialect == "anthropic":
        kind = _ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        shape = {"type": kind, "message": error.message}
        return {"type": "error", "error": shape, "request_id": request_id}
    return {"error": error.message, "code": error.code, "request_id": request_id}


def stream_event(error: GatewayError, dialect: Dialect, request_id: str) -> bytes:
    """The same error as the last event of a stream whose 200 is already out."""
    data = orjson.dumps(body_of(error, dialect, request_id))
    if dialect == "anthropic":
        return b"event: error\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"
