"""Knows which route answers which path."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import orjson

from gateway.demo.audio import speech, transcriptions
from gateway.demo.chat import chat
from gateway.demo.completions import completions
from gateway.demo.embeddings import embeddings, moderations
from gateway.demo.exchange import Exchange, Reply, as_json
from gateway.demo.files import batches, files, one_batch, one_file
from gateway.demo.images import edits, generations
from gateway.demo.message_batches import PATH, message_batches, one_message_batch
from gateway.demo.messages import count_tokens, messages
from gateway.demo.models import models, one_model
from gateway.demo.refusal import ProviderError
from gateway.demo.responses import input_tokens, responses, stored
from gateway.demo.worker import PREFIX, execute, worker

Handler = Callable[[Exchange], Reply]
ObjectHandler = Callable[[Exchange, str, str], Reply]

POSTS: dict[str, tuple[str, Handler]] = {
    "/v1/chat/completions": ("chat", chat),
    "/v1/responses": ("responses", responses),
    "/v1/responses/input_tokens": ("responses", input_tokens),
    "/v1/completions": ("completions", completions),
    "/v1/embeddings": ("embeddings", embeddings),
    "/v1/moderations": ("moderations", moderations),
    "/v1/images/generations": ("images", generations),
    "/v1/images/edits": ("images", edits),
    "/v1/images/variations": ("images", edits),
    "/v1/audio/speech": ("speech", speech),
    "/v1/audio/transcriptions": ("transcriptions", transcriptions),
    "/v1/audio/translations": ("transcriptions", transcriptions),
    "/v1/files": ("files", files),
    "/v1/batches": ("batches", batches),
    "/v1/messages": ("messages", messages),
    PATH: ("message_batches", message_batches),
    "/v1/messages/count_tokens": ("count_tokens", count_tokens),
    "/worker/api/execute": ("worker", execute),
}
GETS: dict[str, tuple[str, Handler]] = {
    "/v1/files": ("files", files),
    "/v1/batches": ("batches", batches),
    "/v1/models": ("models", models),
    PATH: ("message_batches", message_batches),
}
# One object: the methods allowed, and what may follow its id.
OBJECTS: dict[str, tuple[str, ObjectHandler, frozenset[str]]] = {
    "/v1/files": ("files", one_file, frozenset({"GET ", "DELETE ", "GET content"})),
    "/v1/batches": ("batches", one_batch, frozenset({"GET ", "POST cancel"})),
    "/v1/models": ("models", one_model, frozenset({"GET "})),
    PATH: (
        "message_batches",
        one_message_batch,
        frozenset({"GET ", "DELETE ", "POST cancel", "GET results"}),
    ),
    "/v1/responses": ("responses", stored, frozenset({"GET ", "DELETE ", "GET input_items", "POST cancel"})),
}


def answer(exchange: Exchange) -> Reply:
    """The reply to one call, faults apart. Raises ProviderError."""
    request = exchange.request
    path, method = request.path, request.method
    table = POSTS if method == "POST" else GETS if method == "GET" else {}
    found = table.get(path)
    if found is not None:
        exchange.route, handler = found
        return handler(exchange)
    if path.startswith(PREFIX):
        exchange.route = "worker"
        return worker(exchange)
    if path.startswith("/v1/"):
        return _object(exchange) or echo(exchange)
    if path == "/":
        return as_json({"service": "tidegate fake provider", "models": exchange.provider.settings.models})
    raise ProviderError(404, f"Invalid URL ({method} {path})")


def _object(exchange: Exchange) -> Reply | None:
    path = exchange.request.path
    kind = PATH if path.startswith(f"{PATH}/") else "/".join(path.split("/", 3)[:3])  # "", v1, kind
    entry = OBJECTS.get(kind)
    object_id, _, rest = path.removeprefix(f"{kind}/").partition("/")
    if entry is None or path == kind or not object_id:
        return None
    name, handler, allowed = entry
    if f"{exchange.request.method} {rest}" not in allowed:
        return None
    exchange.route = name
    return handler(exchange, object_id, rest)


def echo(exchange: Exchange) -> Reply:
    """Any other /v1 path: tells what arrived, and the body where it is JSON."""
    request = exchange.request
    try:
        body = orjson.loads(request.body) if request.body else None
    except ValueError:
        body = None
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        exchange.model = body["model"]
    return as_json(
        {
            "object": "echo",
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "content_type": request.fields.get(b"content-type", b"").decode("latin-1"),
            "bytes": len(request.body),
            "sha256": hashlib.sha256(request.body).hexdigest(),
            "body": body,
        }
    )
