"""Knows the fake provider's own paths, /fake/...: what it has seen, its plan, and back to the start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from gateway.demo.exchange import Request
from gateway.demo.refusal import ProviderError

if TYPE_CHECKING:
    from gateway.demo.connection import Connection
    from gateway.demo.provider import Provider

BODY_SHOWN = 65_536  # bytes


def answer(provider: Provider, request: Request, connection: Connection, now: float) -> tuple[int, bytes]:
    """The status and body of one answer. Raises ProviderError."""
    called = f"{request.method} {request.path}"
    if called == "GET /fake/stats":
        return 200, orjson.dumps(told_stats(provider))
    if called == "GET /fake/requests":
        return 200, orjson.dumps({"requests": [told_request(seen) for seen in provider.recent]})
    if called == "GET /fake/plan":
        return 200, orjson.dumps({"rules": provider.plan.told()})
    if called == "POST /fake/plan":
        set_plan(provider, request.body, now)
        return 200, orjson.dumps({"rules": provider.plan.told()})
    if called == "POST /fake/reset":
        provider.reset(now)
        return 200, b'{"reset":true}'
    if called == "POST /fake/drop":
        others = [other for other in provider.connections if other is not connection]
        for other in others:
            other.reset()
        return 200, orjson.dumps({"dropped": len(others)})
    raise ProviderError(404, f"Invalid URL ({called})")


def read_rules(text: bytes) -> list[Any]:
    """The rules in a plan's JSON: a list of them, or an object with `rules`. Raises ValueError."""
    plan = orjson.loads(text)
    rules = plan.get("rules") if isinstance(plan, dict) else plan
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ValueError("plan: expected a list of rules")
    return rules


def set_plan(provider: Provider, text: bytes, now: float) -> None:
    """Puts a plan in force. Raises ProviderError 400, the old one then staying."""
    try:
        provider.set_plan(read_rules(text), now)
    except (ValueError, TypeError) as error:
        raise ProviderError(400, str(error)) from None


def told_stats(provider: Provider) -> dict[str, Any]:
    """The counters, and the slots in use."""
    slots = provider.slots
    return provider.stats.told() | {
        "slots": None if slots is None else slots.limit,
        "slots_held": None if slots is None else slots.held,
    }


def told_request(request: Request) -> dict[str, Any]:
    """A request as it came; a body over 64 KiB is cut, one that isn't UTF-8 shown with replacements."""
    return {
        "method": request.method,
        "target": request.target,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers],
        "bytes": len(request.body),
        "body": request.body[:BODY_SHOWN].decode("utf-8", "replace"),
    }
