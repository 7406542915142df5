"""Knows OpenAI's files and batches. A batch moves on one state each time it is asked for, and answers every line."""

from __future__ import annotations

import time
from typing import Any

import orjson

from gateway.demo.exchange import Exchange, Reply, Request, as_json
from gateway.demo.multipart import read_form
from gateway.demo.objects import page
from gateway.demo.refusal import ProviderError
from gateway.demo.usage import Usage

DAY_S = 86_400
PAGE = 100


def files(exchange: Exchange) -> Reply:
    """POST and GET /v1/files."""
    objects = exchange.provider.objects
    if exchange.request.method == "POST":
        return _upload(exchange)
    purpose = exchange.request.parameter("purpose")
    items = [item for item in objects.listed("file") if purpose is None or item["purpose"] == purpose]
    if exchange.request.parameter("order") == "asc":
        items.reverse()
    return as_json(page(items, _limit(exchange), exchange.request.parameter("after")))


def one_file(exchange: Exchange, file_id: str, rest: str) -> Reply:
    """GET and DELETE /v1/files/{id}, GET /v1/files/{id}/content."""
    objects = exchange.provider.objects
    found = objects.get("file", file_id)
    if found is None:
        raise ProviderError(404, f"No such File object: {file_id}", param="id")
    if exchange.request.method == "DELETE":
        objects.drop("file", file_id)
        return as_json({"id": file_id, "object": "file", "deleted": True})
    if rest == "content":
        return Reply(objects.content(file_id), content_type=b"application/octet-stream")
    return as_json(found)


def _limit(exchange: Exchange) -> int:
    asked = exchange.request.parameter("limit")
    return int(asked) if asked is not None and asked.isdigit() and int(asked) > 0 else PAGE


def _upload(exchange: Exchange) -> Reply:
    request = exchange.request
    form = read_form(request.fields.get(b"content-type", b""), request.body)
    sent = form.file("file")
    purpose = form.field("purpose")
    if not purpose:
        raise ProviderError(400, "'purpose' is a required property", param="purpose")
    made = _file(exchange.make_id("file-"), sent.filename or "file", purpose, len(sent.data))
    exchange.provider.objects.put("file", made["id"], made, sent.data)
    return as_json(made, Usage(units={"bytes": len(sent.data)}))


def _file(file_id: str, name: str, purpose: str, size: int) -> dict[str, Any]:
    return {
        "id": file_id,
        "object": "file",
        "bytes": size,
        "created_at": int(time.time()),
        "expires_at": None,
        "filename": name,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }


def batches(exchange: Exchange) -> Reply:
    """POST and GET /v1/batches."""
    objects = exchange.provider.objects
    if exchange.request.method != "POST":
        return as_json(page(objects.listed("batch"), _limit(exchange), exchange.request.parameter("after")))
    body = exchange.body
    source = body.get("input_file_id")
    if not isinstance(source, str) or objects.get("file", source) is None:
        raise ProviderError(400, f"No such File object: {source}", param="input_file_id")
    made = _batch(exchange.make_id("batch_"), body, len(_lines(exchange, source)))
    objects.put("batch", made["id"], made)
    return as_json(made)


def _lines(exchange: Exchange, file_id: str) -> list[bytes]:
    return [line for line in exchange.provider.objects.content(file_id).split(b"\n") if line.strip()]


def _batch(batch_id: str, body: dict[str, Any], total: int) -> dict[str, Any]:
    now = int(time.time())
    stamps = (
        "in_progress_at",
        "finalizing_at",
        "completed_at",
        "failed_at",
        "expired_at",
        "cancelling_at",
        "cancelled_at",
    )
    return {
        "id": batch_id,
        "object": "batch",
        "endpoint": body.get("endpoint") or "/v1/chat/completions",
        "errors": None,
        "input_file_id": body["input_file_id"],
        "completion_window": body.get("completion_window") or "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": now,
        "expires_at": now + DAY_S,
        **dict.fromkeys(stamps),
        "request_counts": {"total": total, "completed": 0, "failed": 0},
        "metadata": body.get("metadata"),
    }


def one_batch(exchange: Exchange, batch_id: str, rest: str) -> Reply:
    """GET /v1/batches/{id}, POST /v1/batches/{id}/cancel."""
    batch = exchange.provider.objects.get("batch", batch_id)
    if batch is None:
        raise ProviderError(404, f"No batch found with id '{batch_id}'.")
    now = int(time.time())
    if rest == "cancel":
        if batch["status"] not in ("validating", "in_progress", "cancelling"):
            raise ProviderError(409, f"Cannot cancel a batch with status '{batch['status']}'.")
        batch |= {"status": "cancelling", "cancelling_at": now}
        return as_json(batch)
    if batch["status"] == "cancelling":
        batch |= {"status": "cancelled", "cancelled_at": now}
    elif batch["status"] == "validating":
        batch |= {"status": "in_progress", "in_progress_at": now}
    elif batch["status"] == "in_progress":
        _complete(exchange, batch, now)
    return as_json(batch)


def _complete(exchange: Exchange, batch: dict[str, Any], now: int) -> None:
    objects = exchange.provider.objects
    lines = _lines(exchange, batch["input_file_id"])
    total = Usage()
    results = [_answered(exchange, number, line, batch["endpoint"], total) for number, line in enumerate(lines)]
    made = _file(f"file-{batch['id']}-output", "output.jsonl", "batch_output", sum(map(len, results)))
    objects.put("file", made["id"], made, b"".join(results))
    batch |= {"status": "completed", "finalizing_at": now, "completed_at": now, "output_file_id": made["id"]}
    batch["request_counts"] = {"total": len(lines), "completed": len(lines), "failed": 0}
    batch["usage"] = {
        "input_tokens": total.input,
        "input_tokens_details": {"cached_tokens": total.cached},
        "output_tokens": total.output,
        "output_tokens_details": {"reasoning_tokens": total.reasoning},
        "total_tokens": total.input + total.output,
    }


def _answered(exchange: Exchange, number: int, line: bytes, endpoint: str, total: Usage) -> bytes:
    custom_id, status, answer = None, 200, b""
    try:
        entry = _entry(line)
        custom_id = entry.get("custom_id")
        reply = _run(exchange, number, endpoint, orjson.dumps(entry.get("body")))
        answer = reply.body
        total.input += reply.usage.input
        total.output += reply.usage.output
    except ProviderError as error:
        status, answer = error.status, error.render(False, exchange.id)
    response = {"status_code": status, "request_id": exchange.id, "body": orjson.Fragment(answer)}
    made = {"id": f"batch_req_{exchange.id}_{number}", "custom_id": custom_id, "response": response, "error": None}
    return orjson.dumps(made) + b"\n"


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = orjson.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise ProviderError(400, "This line is not a JSON object.")
    return entry


def _run(exchange: Exchange, number: int, endpoint: str, body: bytes) -> Reply:
    handler = exchange.provider.handler_of(endpoint)
    request = Request("POST", endpoint, [], body)
    inner = Exchange(exchange.provider, request, exchange.number, f"{exchange.id}-{number}", anthropic=False)
    return handler(inner)
