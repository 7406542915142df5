"""Calls as the proxy would have made them, and meters for their replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.call import Call, Facts
from gateway.jsonbody import parse
from gateway.prices import Quote
from gateway.providers import KINDS
from gateway.providers.base import Kind, Meter, Provider, Verdict
from gateway.routes import Router
from gateway.targets import Target
from gateway.upstream.base import UpstreamClient
from gateway.usage import Usage

NO_CLIENT = cast(UpstreamClient, None)
NO_QUOTE = cast(Quote, None)


def provider_of(kind: Kind, **more: Any) -> Provider:
    settings: dict[str, Any] = {"base_url": "https://upstream.invalid/v1", "base_path": b"/v1", "client": NO_CLIENT}
    return Provider(name="upstream", kind=kind, **{**settings, **more})


def target_of(kind: Kind, model: str = "m", upstream_model: str = "", **more: Any) -> Target:
    return Target(provider_of(kind), model, upstream_model or model, NO_QUOTE, **more)


def call_of(
    path: str, body: bytes | None = None, *, method: str = "POST", kind: str = "openai", query: bytes = b""
) -> Call:
    headers = [] if body is None else [(b"content-type", b"application/json")]
    match = Router().match(method, path.encode())
    call = Call(
        id="0",
        route=match.route,
        dialect=match.route.dialect,
        method=method,
        path=path.encode(),
        query=query,
        raw_headers=headers,
        started_ns=0,
        started_wall_ns=0,
    )
    if body is None:
        call.facts = Facts(unbounded=match.route.model)
        return call
    call.body = body
    call.json = parse(body)
    call.facts = KINDS[kind].facts(match.route, call.json, body)
    return call


def meter_of(call: Call, kind: str = "openai", type: str = "application/json", status: int = 200, **more: Any) -> Meter:
    headers = [(b"content-type", type.encode())] if type else []
    return KINDS[kind].meter(call, target_of(KINDS[kind], **more), status, headers)


def run(meter: Meter, chunks: list[bytes], complete: bool = True) -> tuple[bytes, Usage, Verdict]:
    """All bytes that went out, and how it ended."""
    came = [meter.feed(chunk) for chunk in chunks]
    rest, usage, verdict = meter.finish(complete)
    return b"".join(came) + rest, usage, verdict


class Bench:
    """The functions above, for test modules that can't import them."""

    call = staticmethod(call_of)
    meter = staticmethod(meter_of)
    provider = staticmethod(provider_of)
    target = staticmethod(target_of)
    run = staticmethod(run)
    kinds: dict[str, Kind] = KINDS


@pytest.fixture(scope="session")
def bench() -> Callable[[], Bench] | Bench:
    return Bench()
