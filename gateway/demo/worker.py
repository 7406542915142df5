"""Knows a downstream worker: it echoes whatever it is sent, and runs actions as the old system's workers did."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from gateway.demo.exchange import Exchange, Reply, as_json
from gateway.demo.refusal import ProviderError
from gateway.demo.script import PLAIN, parse
from gateway.demo.text import plain

PREFIX = "/worker"


def worker(exchange: Exchange) -> Reply:
    """Any method on /worker/...: tells what arrived. Its bill: the body by tokens in, the settings' length out."""
    request = exchange.request
    exchange.model = "echo"
    output = exchange.provider.settings.output_tokens if exchange.script.chunks is None else exchange.script.chunks
    usage = exchange.bill((len(request.body) + 3) // 4, output)
    answer = {
        "worker": "demo",
        "method": request.method,
        "path": request.path.removeprefix(PREFIX),
        "query": request.query,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers],
        "bytes": len(request.body),
        "sha256": hashlib.sha256(request.body).hexdigest(),
    }
    return as_json(answer | _told(exchange, usage.input, usage.output), usage)


def execute(exchange: Exchange) -> Reply:
    """POST /worker/api/execute: {action, input, params, config, timeout} in, {success, output, usage, ...} out.

    `params` may hold `x-fake` with faults, for callers who cannot set a header; `{"fail": true}` in it makes an answer
    of 200 that says success: false.
    """
    if exchange.request.method != "POST":
        raise ProviderError(405, "POST only.")
    body = exchange.body
    action = exchange.model = str(body.get("action") or "process")
    params = body.get("params")
    params = params if isinstance(params, dict) else {}
    _take_faults(exchange, params)
    given = body.get("input")
    output = exchange.provider.settings.output_tokens if exchange.script.chunks is None else exchange.script.chunks
    usage = exchange.bill(exchange.provider.tokens.text(orjson.dumps(given).decode()), output)
    answer: dict[str, Any] = {
        "success": not params.get("fail"),
        "output": {"action": action, "input": given, "text": plain(output)},
        "model": "demo-small",
        "duration": round(exchange.script.latency_ms or 0.0),
        "storage": {"bytes": 0},
        "metadata": {"worker": "demo", "request_id": exchange.id, "timeout": body.get("timeout")},
    }
    if params.get("fail"):
        answer |= {"error": "The action was asked to fail.", "output": None}
    return as_json(answer | _told(exchange, usage.input, usage.output), usage)


def _take_faults(exchange: Exchange, params: dict[str, Any]) -> None:
    faults = params.get("x-fake")
    if faults is None or exchange.script is not PLAIN:
        return
    try:
        exchange.script = parse(faults)
    except ValueError as error:
        raise ProviderError(400, str(error)) from None


def _told(exchange: Exchange, tokens_in: int, tokens_out: int) -> dict[str, Any]:
    mode = exchange.script.usage
    if mode == "no":
        return {}
    if mode == "null":
        return {"usage": None}
    zero = mode == "zero"
    return {"usage": {"tokens": {"input": 0 if zero else tokens_in, "output": 0 if zero else tokens_out}}}
