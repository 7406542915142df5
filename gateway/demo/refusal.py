"""Knows how a provider says no: its errors, in the words and the shape of each dialect."""

from __future__ import annotations

import orjson

MESSAGES = {
    400: "The request could not be understood.",
    401: "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.",
    403: "You are not allowed to use this resource.",
    404: "The resource could not be found.",
    408: "The request timed out.",
    409: "The resource is in conflict with this request.",
    413: "Request exceeds the maximum size.",
    422: "The request could not be processed.",
    429: "Rate limit reached on tokens per min (TPM). Please try again later.",
    500: "The server had an error while processing your request. Sorry about that!",
    502: "Bad gateway.",
    503: "The engine is currently overloaded, please try again later.",
    504: "The request timed out upstream.",
    529: "Overloaded",
}
OPENAI_TYPES = {401: "invalid_request_error", 403: "insufficient_permissions", 429: "tokens"}
OPENAI_CODES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}
ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class ProviderError(Exception):
    """An answer that is an error; rendered in the caller's dialect."""

    def __init__(self, status: int, message: str = "", code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message if message else MESSAGES.get(status, f"HTTP {status}")
        self.code = code
        self.param = param

    def render(self, anthropic: bool, request_id: str) -> bytes:
        """The error's body."""
        return self._anthropic(request_id) if anthropic else self._openai()

    def _openai(self) -> bytes:
        code = OPENAI_CODES.get(self.status) if self.code is None else self.code
        kind = OPENAI_TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        if code == "insufficient_quota":
            kind = code
        return orjson.dumps({"error": {"message": self.message, "type": kind, "param": self.param, "code": code}})

    def _anthropic(self, request_id: str) -> bytes:
        fallback = "api_error" if self.status >= 500 else "invalid_request_error"
        kind = ANTHROPIC_TYPES.get(self.status, fallback) if self.code is None else self.code
        error = {"type": kind, "message": self.message}
        return orjson.dumps({"type": "error", "error": error, "request_id": request_id})
