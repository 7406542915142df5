"""Who is calling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gateway.call import Call
from gateway.directory import Directory
from gateway.errors import InvalidKey
from gateway.policy import Gate, Policy


@dataclass
class Identity(Policy):
    """Finds client and key by the secret in `Authorization: Bearer` or `x-api-key`."""

    always_enforce: ClassVar[bool] = True
    before_body: ClassVar[bool] = True

    def provide(self, gate: Gate) -> None:
        self._directory: Directory = gate.directory

    def apply(self, call: Call) -> None:
        digest = call.memo.get("digest")  # hashed once for all calls with the same head on one connection
        if digest is None:
            digest = call.memo["digest"] = self._directory.digest(secret_of(call))
        found = self._directory.holder(digest)
        if found is None:
            # One answer for unknown, revoked and expired: a guesser learns nothing.
            raise InvalidKey("The API key is not valid here. Check it, or ask the operator of this gateway for one.")
        call.key, call.client = found


def secret_of(call: Call) -> bytes:
    """The credential that a call carries. Raises InvalidKey where there is none, or two that differ."""
    authorization = call.headers.get(b"authorization")
    api_key = call.headers.get(b"x-api-key")
    bearer = b""
    if authorization is not None:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() == b"bearer":
            bearer = token.strip()
    if api_key and bearer and api_key != bearer:
        raise InvalidKey("Authorization and x-api-key carry different keys; send one of them.")
    secret = bearer or api_key
    if not secret:
        raise InvalidKey(
            "There is no API key. Send this gateway's key as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
        )
    return secret
