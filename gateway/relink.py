"""Links in a provider's answer that lead back to it, and have to lead here.

Anthropic's SDK fetches a batch's results where `results_url` says, with the key that it has: ours, which is nobody
else's business.
"""

from __future__ import annotations

import re

from gateway.call import Call

_LINK = re.compile(rb'("results_url"\s*:\s*")https?://[^"/]+[^"]*?(/v1/messages/batches/)')
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")


def relinked(call: Call, body: bytes, *, is_trusted: bool, prefix: bytes) -> bytes:
    """The body with such links at the address that the caller used; a path alone where it did not say."""
    if b"results_url" not in body:
        return body
    host = call.headers.get(b"host", b"")
    scheme = call.headers.get(b"x-forwarded-proto", b"http") if is_trusted else b"http"
    known = _HOST.fullmatch(host) is not None and scheme in (b"http", b"https")
    origin = scheme + b"://" + host if known else b""
    return _LINK.sub(lambda found: found[1] + origin + prefix + found[2], body)
