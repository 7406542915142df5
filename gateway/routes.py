"""Every path the gateway answers, in one table: admission, tests and metrics all read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from gateway.errors import Dialect, MethodNotAllowed, NotFound, NotOffered

Body = Literal["json", "auto", "none"]
Plane = Literal["data", "public", "control"]


@dataclass(frozen=True, slots=True)
class Route:
    """A class of request. `body`: "json" is parsed, "auto" only when its content type says JSON and otherwise passes
    through unbuffered, "none" has none. `objects` names the provider objects that this path makes, lists or names."""

    name: str  # what scopes, limits, metrics and the ledger call it
    template: str  # label for metrics; `{id}` stands for one segment, `{path}` for the rest
    methods: frozenset[str]
    dialect: Dialect = "openai"
    body: Body = "none"
    model: bool = False  # the body names a model that must be routable
    objects: str = ""
    plane: Plane = "data"
    shared: bool = False  # Anthropic has this path too: an anthropic-version header selects its dialect
    any_method: bool = False  # also those of WebDAV and the like, which `methods` does not list


def _route(name: str, methods: str, template: str, **more: object) -> Route:
    return Route(name, template, frozenset(methods.split()), **more)  # type: ignore[arg-type]  # typed by Route itself


#: What a call has until its path is known to lead anywhere.
UNKNOWN = _route("unknown", "", "(unknown)")

ANY = "GET HEAD POST PUT PATCH DELETE OPTIONS"

#: In order: the first template that fits wins; the same template may stand once for each set of methods.
TABLE: tuple[Route, ...] = (
    _route("chat", "POST", "/v1/chat/completions", body="json", model=True, objects="chat.completion"),
    _route("chat_objects", "GET", "/v1/chat/completions", objects="chat.completion"),
    _route("chat_objects", "GET POST DELETE", "/v1/chat/completions/{id}", body="auto", objects="chat.completion"),
    _route("chat_objects", "GET", "/v1/chat/completions/{id}/{path}", objects="chat.completion"),
    _route("responses", "POST", "/v1/responses", body="json", model=True, objects="response"),
    _route("responses", "POST", "/v1/responses/input_tokens", body="json", model=True),
    _route("responses", "POST", "/v1/responses/compact", body="json", model=True, objects="response"),
    _route("response_objects", "GET DELETE", "/v1/responses/{id}", objects="response"),
    _route("response_objects", "GET POST", "/v1/responses/{id}/{path}", body="auto", objects="response"),
    _route("completions", "POST", "/v1/completions", body="json", model=True),
    _route("embeddings", "POST", "/v1/embeddings", body="json", model=True),
    _route("moderations", "POST", "/v1/moderations", body="json", model=True),
    _route("images", "POST", "/v1/images/{path}", body="auto", model=True),
    _route("other", ANY, "/v1/audio/voices", body="auto", objects="object"),
    _route("other", ANY, "/v1/audio/voices/{path}", body="auto", objects="object"),
    _route("other", ANY, "/v1/audio/voice_consents", body="auto", objects="object"),
    _route("other", ANY, "/v1/audio/voice_consents/{path}", body="auto", objects="object"),
    _route("audio", "POST", "/v1/audio/{path}", body="auto", model=True),
    _route("files", "GET POST", "/v1/files", body="auto", objects="file", shared=True),
    _route("files", "GET DELETE", "/v1/files/{id}", objects="file", shared=True),
    _route("files", "GET", "/v1/files/{id}/{path}", objects="file", shared=True),
    _route("batches", "GET POST", "/v1/batches", body="json", objects="batch"),
    _route("batches", "GET", "/v1/batches/{id}", objects="batch"),
    _route("batches", "POST", "/v1/batches/{id}/{path}", body="auto", objects="batch"),
    _route("models", "GET HEAD", "/v1/models", shared=True),
    _route("models", "GET HEAD", "/v1/models/{path}", shared=True),
    _route("messages", "POST", "/v1/messages", dialect="anthropic", body="json", model=True),
    _route("count_tokens", "POST", "/v1/messages/count_tokens", dialect="anthropic", body="json", model=True),
    _route("message_batches", "GET POST", "/v1/messages/batches", dialect="anthropic", body="json", objects="msgbatch"),
    _route("message_batches", "GET DELETE", "/v1/messages/batches/{id}", dialect="anthropic", objects="msgbatch"),
    _route(
        "message_batches", "GET POST", "/v1/messages/batches/{id}/{path}", dialect="anthropic", body="auto",
        objects="msgbatch",
    ),
    _route("other", ANY, "/v1/{path}", body="auto", objects="object", shared=True),
    _route("worker", ANY, "/workers/{id}/{path}", dialect="plain", body="auto", any_method=True),
    _route("worker", ANY, "/workers/{id}", dialect="plain", body="auto", any_method=True),
    _route("about", "GET HEAD", "/", dialect="plain", plane="public"),
    _route("livez", "GET HEAD", "/livez", dialect="plain", plane="public"),
    _route("readyz", "GET HEAD", "/readyz", dialect="plain", plane="public"),
    _route("health", "GET HEAD", "/health", dialect="plain", plane="public"),
    _route("metrics", "GET HEAD", "/metrics", dialect="plain", plane="control"),
    _route("control", "GET HEAD", "/control/v1/pools", dialect="plain", plane="control"),
    _route("control", "GET HEAD", "/control/v1/queue", dialect="plain", plane="control"),
    _route("control", "GET HEAD", "/control/v1/queue/{id}", dialect="plain", plane="control"),
    _route("control", "GET HEAD", "/control/v1/providers", dialect="plain", plane="control"),
    _route("control", "GET HEAD", "/status", dialect="plain", plane="control"),
    _route("control", "GET HEAD", "/api/resources/availability", dialect="plain", plane="control"),
    _route("control", "POST", "/api/resources/check", dialect="plain", plane="control"),
    _route("control", "GET HEAD", "/api/queue/status", dialect="plain", plane="control"),
    _route("control", "GET HEAD", "/api/queue/position/{id}", dialect="plain", plane="control"),
)  # fmt: skip

#: What is never passed on, by the first part of the path behind /v1, and why.
_NOT_OFFERED = {
    "realtime": "Realtime and its client secrets are not offered; use the HTTP and SSE routes.",
    "chatkit": "ChatKit's sessions hand out credentials of the provider, so they are not offered.",
    "organization": "The administration of the provider's account is not offered to clients of this gateway.",
    "organizations": "The administration of the provider's account is not offered to clients of this gateway.",
}

#: Paths that name their model themselves, where no scope or price could follow it. (Anthropic's own deployments are
#: objects, and nothing of a model's stands below them.)
_RETIRED = ("engines", "deployments")


#: What SDKs ask for behind /v1, by its first part: those of the table, and those that "other" passes on.
_MORE = (
    "assistants", "containers", "conversations", "evals", "fine_tuning", "realtime", "skills", "threads", "uploads",
    "vector_stores", "videos",
)  # fmt: skip
_TABLED = [route.template.split("/")[2] for route in TABLE if route.template.startswith("/v1/")]
_COLLECTIONS = frozenset((*_MORE, *_TABLED)) - {"{path}"}


def spelt(path: bytes) -> bytes:
    """The path as the table has it, so that one base URL serves every SDK: with http://host OpenAI's asks for
    /chat/completions, with http://host/v1 Anthropic's for /v1/v1/messages."""
    while path.startswith(b"/v1/v1/"):
        path = path[3:]
    if path.startswith(b"/v1/"):
        return path
    head = path[1:].partition(b"/")[0]
    return b"/v1" + path if head.decode("latin-1") in _COLLECTIONS else path


@dataclass(frozen=True, slots=True)
class Match:
    """A route and what its template caught: `id` one segment, `rest` what follows (without a leading slash)."""

    route: Route
    id: str = ""
    rest: str = ""


class Router:
    """Finds the route of a canonical path. Paths without a variable part are one dict look-up."""

    def __init__(self, table: tuple[Route, ...] = TABLE) -> None:
        self._exact: dict[tuple[str, bytes], Match] = {}
        self._patterns: list[tuple[list[str], Route]] = []
        for route in table:
            if "{" in route.template:
                self._patterns.append((route.template.strip("/").split("/"), route))
                continue
            for method in route.methods:
                self._exact[method, route.template.encode()] = Match(route)

    def match(self, method: str, path: bytes) -> Match:
        """Raises NotFound, or MethodNotAllowed naming the methods that this path has."""
        found = self._exact.get((method, path))
        if found is not None:
            return found
        segments = path.decode("ascii").strip("/").split("/")
        other_methods = set(self._methods_of(path))
        if other_methods:
            raise self._refuse_method(method, path, other_methods)
        for pattern, route in self._patterns:
            match = _fit(pattern, segments, route)
            if match is None:
                continue
            if route.name == "other":
                if other_methods:
                    break  # a known collection is never reached around its own routes
                self._check_other(path)
            if method in route.methods or route.any_method:
                return match
            other_methods |= route.methods
        if other_methods:
            raise self._refuse_method(method, path, other_methods)
        raise NotFound(
            f"There is nothing at {path.decode('ascii')}. OpenAI routes start at /v1, Anthropic's at /v1/messages, "
            "workers at /workers/NAME; / says what this is."
        )

    def _check_other(self, path: bytes) -> None:
        """A path that we know nothing about is passed on, unless an upstream might take it for one that we know."""
        plain = _plain(path)
        head, *further = plain.removeprefix("/v1").lstrip("/").split("/")
        if head in _NOT_OFFERED:
            raise NotOffered(_NOT_OFFERED[head])
        if head in _RETIRED and (head == "engines" or (further[1:2] and further[1] in _COLLECTIONS)):
            raise NotFound(f"/v1/{head} is not served here. Name the model in the body of /v1/chat/completions.")
        if plain.encode() != path and self._knows(plain):
            raise NotFound(f"There is nothing at {path.decode('ascii')}. The path is spelt {plain}.")

    def _knows(self, plain: str) -> bool:
        """Whether any route but the last resort has this path, whatever its methods."""
        segments = plain.strip("/").split("/")
        return bool(self._methods_of(plain.encode())) or any(
            route.name != "other" and _fit(pattern, segments, route) is not None for pattern, route in self._patterns
        )

    def _methods_of(self, path: bytes) -> list[str]:
        return [method for method, known in self._exact if known == path]

    @staticmethod
    def _refuse_method(method: str, path: bytes, methods: set[str]) -> MethodNotAllowed:
        allowed = ", ".join(sorted(methods))
        return MethodNotAllowed(
            f"{method} is not possible on {path.decode('ascii')}; it takes {allowed}.",
            headers=((b"allow", allowed.encode()),),
        )


def _plain(path: bytes) -> str:
    """A path as a lenient upstream may read it: letters in lower case, without path parameters, white space and a
    slash at its end."""
    segments = unquote(path.decode("ascii")).lower().split("/")
    return "/".join(segment.partition(";")[0].strip() for segment in segments).rstrip("/")


def _fit(pattern: list[str], segments: list[str], route: Route) -> Match | None:
    caught = ""
    for index, part in enumerate(pattern):
        if part == "{path}":
            rest = "/".join(segments[index:])
            return Match(route, caught, rest) if rest else None
        if index >= len(segments):
            return None
        if part == "{id}":
            caught = segments[index]
        elif part != segments[index]:
            return None
    return Match(route, caught) if len(pattern) == len(segments) and (caught or "{id}" not in pattern) else None
