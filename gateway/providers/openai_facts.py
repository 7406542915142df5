"""What admission needs of a request to OpenAI's API: its model, its worst case, the stored objects that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.call import Facts
from gateway.providers import asked
from gateway.providers.mentions import IMAGE_TOKENS, mentions

if TYPE_CHECKING:
    from gateway.routes import Route

#: Tools that run at the client, and cost nothing but the tokens of their calls. A name with more behind it is a
#: later version of the same tool.
_CLIENT_TOOLS = ("function", "custom", "namespace", "local_shell", "apply_patch", "computer")

#: Output tokens of the largest image in the highest quality (platform.openai.com/docs/guides/image-generation).
_IMAGE_OUTPUT_TOKENS = 6_240

#: Routes whose input is billed by tokens.
_BY_TOKENS = frozenset({"chat", "completions", "responses", "embeddings", "images", "audio"})

#: Routes whose request can't name a stored object: their bodies are not walked.
_PLAIN = frozenset({"completions", "embeddings", "moderations"})


def facts_of(route: Route, body: Any, raw: bytes) -> Facts:
    """Of a parsed body, or of none (`body` None: a GET, a multipart form). Raises BadRequest."""
    if body is None:
        return Facts(max_tokens=None if route.model else 0, unbounded=route.model)
    is_free = route.template == "/v1/responses/input_tokens"  # counting tokens costs none
    reader = _read_request if is_free else _READERS.get(route.name)
    facts = asked.passed_on(route, body, raw) if reader is None else reader(body)
    if route.name in _BY_TOKENS and not is_free:
        facts.prompt_bytes = len(raw)
    if route.name in _PLAIN or type(body) is not dict:
        return facts
    found = mentions(body)
    facts.object_ids = tuple(found.ids)
    if route.name in ("chat", "responses") and not is_free:
        facts.prompt_bytes += found.images * IMAGE_TOKENS
        facts.unbounded = facts.unbounded or found.is_unbounded or bool(found.ids)
    return facts


def _read_chat(body: Any) -> Facts:
    read = asked.read(body, asked.AskedChat)
    caps = [cap for cap in (read.max_completion_tokens, read.max_tokens) if cap is not None]
    options = read.stream_options
    return Facts(
        model=read.model,
        stream=read.stream is True,
        max_tokens=max(caps) if caps else None,
        n=1 if read.n is None else read.n,
        asked_usage=options is not None and options.include_usage is True,
        unbounded=read.web_search_options is not None
        or (read.modalities is not None and "audio" in read.modalities)
        or asked.is_hosted(read.tools, _CLIENT_TOOLS),
        more_models=() if read.models is None else asked.models_of(read.models),
    )


def _read_completion(body: Any) -> Facts:
    """Several prompts in one call, and several tries of each, are as many outputs."""
    read = asked.read(body, asked.AskedChat)
    options, prompt = read.stream_options, body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    return Facts(
        model=read.model,
        stream=read.stream is True,
        max_tokens=read.max_tokens,
        n=prompts * max(read.n or 1, read.best_of or 1),
        asked_usage=options is not None and options.include_usage is True,
    )


def _read_response(body: Any) -> Facts:
    read = asked.read(body, asked.AskedResponse)
    return Facts(
        model=read.model,
        stream=read.stream is True,
        max_tokens=read.max_output_tokens,
        unbounded=read.background is True
        or any(one is not None for one in (read.previous_response_id, read.conversation, read.prompt))
        or asked.is_hosted(read.tools, _CLIENT_TOOLS),
        more_models=() if read.tools is None else asked.models_of(read.tools),
    )


def _read_embeddings(body: Any) -> Facts:
    read = asked.read(body, asked.Asked)
    inputs = body.get("input")
    count = len(inputs) if isinstance(inputs, list) and inputs and not isinstance(inputs[0], int) else 1
    return Facts(model=read.model, max_tokens=0, units={"inputs": count})


def _read_images(body: Any) -> Facts:
    read = asked.read(body, asked.AskedImages)
    n = 1 if read.n is None else read.n
    by_tokens = read.model is not None and not read.model.startswith("dall-e")
    size, quality = (read.size or "1024x1024")[:32], (read.quality or "standard")[:32]
    return Facts(
        model=read.model,
        stream=read.stream is True,
        max_tokens=_IMAGE_OUTPUT_TOKENS if by_tokens else 0,
        n=n,
        units={"images": n, f"image:{size}:{quality}": n},
    )


def _read_audio(body: Any) -> Facts:
    read = asked.read(body, asked.AskedSpeech)
    by_characters = read.model is not None and read.model.startswith("tts-1")
    return Facts(
        model=read.model,
        stream=read.stream is True or read.stream_format == "sse",
        max_tokens=0 if by_characters else None,
        unbounded=not by_characters,
        units={} if read.input is None else {"characters": len(read.input)},
    )


def _read_request(body: Any) -> Facts:
    """Billed by the request, whatever is in it."""
    return Facts(model=asked.read(body, asked.Asked).model, max_tokens=0, units={"requests": 1})


_READERS = {
    "chat": _read_chat,
    "completions": _read_completion,
    "responses": _read_response,
    "embeddings": _read_embeddings,
    "images": _read_images,
    "audio": _read_audio,
    "moderations": _read_request,
}
