"""What an upstream's failure is called towards the caller."""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import BadUpstream, GatewayError, Unavailable, UpstreamTimedOut
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


def explain(error: UpstreamError, provider: str) -> GatewayError:
    """The refusal that a failed exchange becomes; says whose fault it was and whether to try again."""
    who = f"Provider '{provider}'"
    if isinstance(error, ConnectFailed):
        return Unavailable(f"{who} can't be reached. Retry; the operator can run `tidegate doctor`.", retry_after_s=1.0)
    if isinstance(error, PoolTimeout):
        return Unavailable(f"All connections to provider '{provider}' are busy. Retry shortly.", retry_after_s=1.0)
    if isinstance(error, ConnectTimeout):
        return UpstreamTimedOut(f"{who} took too long to accept a connection (timeouts.connect_s).")
    if isinstance(error, FirstByteTimeout):
        return UpstreamTimedOut(f"{who} took too long to begin its answer (timeouts.first_byte_s).")
    if isinstance(error, IdleTimeout):
        return UpstreamTimedOut(f"{who} stopped sending in the middle of its answer (timeouts.idle_s).")
    if isinstance(error, TotalTimeout):
        return UpstreamTimedOut(f"{who} did not finish its answer in time (timeouts.total_s).")
    if isinstance(error, ProtocolError):
        return BadUpstream(f"{who} answered with something that is not valid HTTP.")
    return BadUpstream(f"{who} closed the connection before its answer was complete.", code="upstream_connection_lost")


def cut_short(provider: str) -> GatewayError:
    """A stream that ended without its end mark."""
    return BadUpstream(f"Provider '{provider}' ended the stream before it was complete.", code="stream_cut")


def disguised(call: Call, provider: str, status: int, content_type: bytes, verdict: str) -> GatewayError | None:
    """What must not reach the caller as it came: our own credential refused, HTML for JSON, an error in a 200."""
    if call.route.dialect == "plain":
        return None  # a worker's answers are its own
    if status in (401, 407):
        return BadUpstream(
            f"Provider '{provider}' refused the gateway's own credential ({status}). "
            "The operator must check its api_key.",
            code="provider_credential_refused",
            should_retry=False,
        )
    is_json = b"json" in content_type
    if status >= 400 and not is_json:
        kind = Unavailable if status in (503, 529) else BadUpstream
        return kind(f"Provider '{provider}' answered {status} without an explanation in JSON.")
    if 200 <= status < 300 and verdict == "error" and call.route.body == "json":
        return BadUpstream(f"Provider '{provider}' answered {status}, but the body is no {call.route.name} reply.")
    return None
