"""Knows Anthropic's message batches. One moves on a state each time it is asked for, and answers every request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from gateway.demo.exchange import Exchange, Reply, Request, as_json
from gateway.demo.refusal import ProviderError

KIND = "message_batch"
PATH = "/v1/messages/batches"
PAGE = 20


def message_batches(exchange: Exchange) -> Reply:
    """POST and GET /v1/messages/batches."""
    if exchange.request.method != "POST":
        return as_json(_page(exchange))
    requests = exchange.body.get("requests")
    if not isinstance(requests, list) or not requests:
        raise ProviderError(400, "requests: Field required")
    names = [one.get("custom_id") if isinstance(one, dict) else None for one in requests]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ProviderError(400, "requests: each needs a custom_id of its own")
    made = _batch(exchange.make_id("msgbatch_"), len(requests))
    exchange.provider.objects.put(KIND, made["id"], made, exchange.request.body)
    return as_json(made)


def one_message_batch(exchange: Exchange, batch_id: str, rest: str) -> Reply:
    """GET and DELETE /v1/messages/batches/{id}, POST .../cancel, GET .../results."""
    objects = exchange.provider.objects
    batch = objects.get(KIND, batch_id)
    if batch is None:
        raise ProviderError(404, f"No message batch found with id '{batch_id}'.")
    if rest == "results":
        return _results(exchange, batch)
    if exchange.request.method == "DELETE":
        if batch["processing_status"] != "ended":
            raise ProviderError(400, "Only a batch that has ended can be deleted.")
        objects.drop(KIND, batch_id)
        return as_json({"id": batch_id, "type": "message_batch_deleted"})
    if rest == "cancel":
        if batch["processing_status"] == "in_progress":
            batch |= {"processing_status": "canceling", "cancel_initiated_at": _stamp()}
    elif batch["processing_status"] != "ended":
        _end(exchange, batch)
    return as_json(batch)


def _stamp(**later: int) -> str:
    return (datetime.now(UTC) + timedelta(**later)).isoformat().replace("+00:00", "Z")


def _batch(batch_id: str, count: int) -> dict[str, Any]:
    return {
        "id": batch_id,
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": {"processing": count, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
        "ended_at": None,
        "created_at": _stamp(),
        "expires_at": _stamp(hours=24),
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
    }


def _end(exchange: Exchange, batch: dict[str, Any]) -> None:
    counts = batch["request_counts"]
    ended = "canceled" if batch["processing_status"] == "canceling" else "succeeded"
    counts |= {ended: counts["processing"], "processing": 0}
    host = exchange.request.fields.get(b"host", b"").decode("latin-1")
    url = f"http://{host}{PATH}/{batch['id']}/results"  # the provider's own address, as the real one gives its own
    batch |= {"processing_status": "ended", "ended_at": _stamp(), "results_url": url}


def _results(exchange: Exchange, batch: dict[str, Any]) -> Reply:
    if batch["processing_status"] != "ended":
        raise ProviderError(404, "The results of this batch are not there yet.")
    sent = orjson.loads(exchange.provider.objects.content(batch["id"]))["requests"]
    lines = [_result(exchange, number, one, batch) for number, one in enumerate(sent)]
    return Reply(b"".join(lines), content_type=b"application/x-jsonl")


def _result(exchange: Exchange, number: int, one: dict[str, Any], batch: dict[str, Any]) -> bytes:
    result: dict[str, Any] = {"type": "canceled"}
    if not batch["cancel_initiated_at"]:
        handler = exchange.provider.handler_of("/v1/messages")
        request = Request("POST", "/v1/messages", [], orjson.dumps(one.get("params")))
        inner = Exchange(exchange.provider, request, exchange.number, f"{exchange.id}-{number}", anthropic=True)
        try:
            result = {"type": "succeeded", "message": orjson.Fragment(handler(inner).body)}
        except ProviderError as error:
            result = {"type": "errored", "error": orjson.Fragment(error.render(True, exchange.id))}
    return orjson.dumps({"custom_id": one["custom_id"], "result": result}) + b"\n"


def _page(exchange: Exchange) -> dict[str, Any]:
    """One page, newest first: behind the batch called `after_id`, or before `before_id`."""
    items = exchange.provider.objects.listed(KIND)
    ids = [item["id"] for item in items]
    after, before = exchange.request.parameter("after_id"), exchange.request.parameter("before_id")
    limit = exchange.request.parameter("limit")
    size = int(limit) if limit is not None and limit.isdigit() and int(limit) > 0 else PAGE
    first = ids.index(after) + 1 if after in ids else 0
    last = ids.index(before) if before in ids else len(items)
    shown = items[max(first, last - size) : last] if before is not None else items[first : first + size]
    more = last - len(shown) > 0 if before is not None else first + len(shown) < len(items)
    return {
        "data": shown,
        "has_more": more,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }
