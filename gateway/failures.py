"""What an upstream's failure is called towards the caller."""

from __future__ import annotations

import orjson

from gateway.call import Call
from gateway.errors import BadUpstream, GatewayError, Header, Relayed, Unavailable, UpstreamTimedOut
from gateway.providers.base import Provider
from gateway.upstream.base import (
    ConnectFailed,
    ConnectTimeout,
    FirstByteTimeout,
    IdleTimeout,
    PoolTimeout,
    ProtocolError,
    TotalTimeout,
    UpstreamError,
)

#: By which a provider says whether to try again; when to is told anyway.
_RETRY = frozenset((b"x-should-retry",))
#: So many bytes or characters of a provider's own words are repeated.
_WORDS = 300


def titled(provider: Provider) -> str:
    """What callers know an upstream as."""
    return f"{'Worker' if provider.kind.name == 'http' else 'Provider'} '{provider.name}'"


def explain(error: UpstreamError, provider: Provider) -> GatewayError:
    """The refusal that a failed exchange becomes; says whose fault it was and whether to try again."""
    who, is_worker = titled(provider), provider.kind.name == "http"

    def bound(name: str) -> str:
        return "timeout_s" if is_worker else f"timeouts.{name}"

    if isinstance(error, ConnectFailed):
        return Unavailable(f"{who} can't be reached. Retry; the operator can run `tidegate doctor`.", retry_after_s=1.0)
    if isinstance(error, PoolTimeout):
        return Unavailable(f"All connections to {who[0].lower()}{who[1:]} are busy. Retry shortly.", retry_after_s=1.0)
    if isinstance(error, ConnectTimeout):
        return UpstreamTimedOut(f"{who} took too long to accept a connection ({bound('connect_s')}).")
    if isinstance(error, FirstByteTimeout):
        return UpstreamTimedOut(f"{who} took too long to begin its answer ({bound('first_byte_s')}).")
    if isinstance(error, IdleTimeout):
        return UpstreamTimedOut(f"{who} stopped sending in the middle of its answer ({bound('idle_s')}).")
    if isinstance(error, TotalTimeout):
        return UpstreamTimedOut(f"{who} did not finish its answer in time ({bound('total_s')}).")
    if isinstance(error, ProtocolError):
        return BadUpstream(f"{who} answered with something that is not valid HTTP.")
    return BadUpstream(f"{who} closed the connection before its answer was complete.", code="upstream_connection_lost")


def overloaded(provider: Provider) -> GatewayError:
    """So it said itself, under a status of success."""
    return Unavailable(f"{titled(provider)} is overloaded. Retry shortly.", retry_after_s=1.0)


def cut_short(provider: str) -> GatewayError:
    """A stream that ended without its end mark."""
    return BadUpstream(f"Provider '{provider}' ended the stream before it was complete.", code="stream_cut")


def disguised(
    call: Call, provider: str, status: int, headers: list[Header], verdict: str, body: bytes
) -> GatewayError | None:
    """What must not reach the caller as it came: our own credential refused, HTML for JSON, an error in a 200.
    `headers` are those of the reply that may go down, `body` is what came of it."""
    if call.route.dialect == "plain":
        return None  # a worker's answers are its own
    if status in (401, 407):
        return BadUpstream(
            f"Provider '{provider}' refused the gateway's own credential ({status}). "
            "The operator must check its api_key.",
            code="provider_credential_refused",
            should_retry=False,
        )
    content_type = next((value for name, value in headers if name == b"content-type"), b"")
    if status >= 400 and b"json" not in content_type:
        kept = tuple(header for header in headers if header[0] in _RETRY)
        said = _plain_words(content_type, body)
        return Relayed(f"Provider '{provider}' answered {status}{said or ' without an explanation'}.", status, kept)
    if 200 <= status < 300 and verdict == "error" and call.route.body == "json":
        no_reply = f"Provider '{provider}' answered {status}, but the body is no {call.route.name} reply"
        return BadUpstream(f"{no_reply}{_error_in(body)}.")
    return None


def _plain_words(content_type: bytes, body: bytes) -> str:
    """A short text is worth telling; a page of HTML is not."""
    if not content_type.startswith(b"text/plain") or not body:
        return ""
    words = " ".join(body[:_WORDS].decode("utf-8", "replace").split())
    return f" and said: {words}" if words.isprintable() else ""


def _error_in(body: bytes) -> str:
    """The provider's own message, where its error came under a status of success."""
    try:
        error = orjson.loads(body)["error"]
        message = error if isinstance(error, str) else error["message"]
    except (ValueError, LookupError, TypeError):
        return ""
    return f"; it said: {message[:_WORDS].rstrip('.')}" if isinstance(message, str) and message else ""
