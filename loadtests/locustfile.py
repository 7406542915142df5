"""Load for any OpenAI- or Anthropic-shaped base URL: what each kind of user asks for, and what counts as answered.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080                       the page, on port 8089
    locust -f loadtests/locustfile.py --host ... --headless -u 50 -r 10 -t 1m ChatUser   no page, one kind of user

docs/loadtests.md explains the options and how to read the rows.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from locust import FastHttpUser, HttpUser, events, task

LONGEST_WAIT_S = 180.0  # a gateway may keep a call waiting for two minutes
WORDS = "How high is the tide today, and which ships wait outside the harbour for it to rise? "


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """The options of this file; each has an environment variable too, and a field on the page."""
    group = parser.add_argument_group("Tidegate load")
    group.add_argument("--model", env_var="TIDEGATE_MODEL", default="demo-small", help="model of chat and streams")
    group.add_argument("--embedding-model", env_var="TIDEGATE_EMBEDDING_MODEL", default="", help="default: --model")
    group.add_argument("--anthropic-model", env_var="TIDEGATE_ANTHROPIC_MODEL", default="", help="default: --model")
    group.add_argument(
        "--worker-path",
        env_var="TIDEGATE_WORKER_PATH",
        default="/workers/demo/api/execute",
        help="what WorkerUser calls",
    )
    group.add_argument("--prompt-bytes", type=int, env_var="TIDEGATE_PROMPT_BYTES", default=1200, help="of the prompt")
    group.add_argument("--max-tokens", type=int, env_var="TIDEGATE_MAX_TOKENS", default=64, help="of the answer")
    group.add_argument(
        "--think-ms", type=int, env_var="TIDEGATE_THINK_MS", default=0, help="a user's pause between calls"
    )
    group.add_argument(
        "--same-prompt", action="store_true", help="every call the same, so that a cache can answer; otherwise none is"
    )
    group.add_argument(
        "--count-refusals",
        action="store_true",
        help="429 and 503 are rows of their own, not failures: for tests of limits and of overload",
    )
    parser.add_argument(
        "--tier-keys",
        env_var="TIDEGATE_TIER_KEYS",
        default="",
        is_secret=True,
        include_in_web_ui=False,
        help="tier=key,tier=key: users take turns, and rows carry the tier's name",
    )


@dataclass
class Credentials:
    """The keys that users take, in turn."""

    pairs: list[tuple[str, str]]
    taken: dict[str, int] = field(default_factory=dict)  # by kind of user

    @classmethod
    def read(cls, tier_keys: str) -> Credentials:
        """From `tier=key,...`; otherwise the one key of the environment. Raises ValueError for a malformed list."""
        if not tier_keys:
            return cls([("", os.environ.get("TIDEGATE_CLIENT_KEY", os.environ.get("OPENAI_API_KEY", "none")))])
        pairs = [part.strip().partition("=") for part in tier_keys.split(",")]
        if not all(tier and key for tier, _, key in pairs):
            raise ValueError("--tier-keys must be tier=key,tier=key")
        return cls([(tier, key) for tier, _, key in pairs])

    def take(self, kind: str) -> tuple[str, str]:
        """The next tier and key for a kind of user, so that each kind has users of every tier."""
        turn = self.taken.get(kind, 0)
        self.taken[kind] = turn + 1
        return self.pairs[turn % len(self.pairs)]


@events.init.add_listener
def prepare(environment: Any, **_: Any) -> None:
    """Reads the keys once; a base URL that ends in /v1, as OpenAI's do, loses it, since every path here has it."""
    environment.credentials = Credentials.read(environment.parsed_options.tier_keys)
    if environment.host:
        environment.host = environment.host.rstrip("/").removesuffix("/v1")


@dataclass
class Timing:
    """When the parts of a stream came, on `time.perf_counter`."""

    start: float = field(default_factory=time.perf_counter)
    first: float | None = None
    last: float = 0.0
    tokens: int = 0
    is_complete: bool = False

    def token(self) -> None:
        """An event with text came."""
        self.last = time.perf_counter()
        self.tokens += 1
        if self.first is None:
            self.first = self.last

    def metrics(self) -> dict[str, float]:
        """Milliseconds to the first token, for each further token, and from end to end."""
        if self.first is None:
            return {"E2E": (time.perf_counter() - self.start) * 1000}
        found = {"TTFT": (self.first - self.start) * 1000, "E2E": (time.perf_counter() - self.start) * 1000}
        if self.tokens > 1:
            found["TPOT"] = (self.last - self.first) * 1000 / (self.tokens - 1)
        return found


class Caller:
    """What all kinds of users share: their key, their prompts, and the names of their rows."""

    environment: Any
    abstract = True

    def on_start(self) -> None:
        """Takes a key."""
        options = self.options = self.environment.parsed_options
        self.tier, key = self.environment.credentials.take(type(self).__name__)
        self.headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        self.think_s = options.think_ms / 1000
        self.turns = itertools.count()

    def wait_time(self) -> float:
        """Seconds between two calls of a user."""
        return self.think_s

    def row(self, name: str) -> str:
        """The row's name, with the tier where there are several."""
        return f"{name} [{self.tier}]" if self.tier else name

    def prompt(self) -> str:
        """A text of the size asked for, its start another one each time unless `--same-prompt` was given."""
        start = "" if self.options.same_prompt else f"{id(self):x}-{next(self.turns)} {time.time_ns()}: "
        size = max(1, self.options.prompt_bytes - len(start))
        return start + (WORDS * (size // len(WORDS) + 1))[:size]

    def chat_body(self, **more: Any) -> bytes:
        """A chat completion's body."""
        messages = [{"role": "user", "content": self.prompt()}]
        return json.dumps(
            {"model": self.options.model, "messages": messages, "max_tokens": self.options.max_tokens, **more}
        ).encode()

    def message_body(self, **more: Any) -> bytes:
        """An Anthropic message's body."""
        return self.chat_body(model=self.options.anthropic_model or self.options.model, **more)

    def is_refusal(self, answer: Any) -> bool:
        """True where the answer is a refusal that the test counts; its row then gets a name of its own."""
        if not (self.options.count_refusals and answer.status_code in (429, 503)):
            return False
        answer.request_meta["name"] += f" ({answer.status_code})"
        answer.success()
        return True


class Plain(Caller, FastHttpUser):
    """A user whose answers are not streamed."""

    abstract = True
    connection_timeout = 10.0
    network_timeout = LONGEST_WAIT_S

    def ask(self, path: str, name: str, body: bytes, whole: Callable[[dict[str, Any]], bool]) -> None:
        """One call. It has failed where its status says so, or where its body is not the JSON that was asked for."""
        with self.client.post(
            path, data=body, headers=self.headers, name=self.row(name), catch_response=True
        ) as answer:
            if answer.status_code != 200:
                if not self.is_refusal(answer):
                    answer.failure(failure_of(answer))
                return
            try:
                complete = whole(json.loads(answer.content))
            except (ValueError, KeyError, IndexError, TypeError):
                complete = False
            if not complete:
                answer.failure("the answer is not whole")


class ChatUser(Plain):
    """Plain chat completions."""

    weight = 5

    @task
    def chat(self) -> None:
        self.ask(
            "/v1/chat/completions", "chat", self.chat_body(), lambda told: bool(told["choices"][0]["finish_reason"])
        )


class EmbeddingsUser(Plain):
    """Embeddings of a few texts."""

    weight = 1

    @task
    def embed(self) -> None:
        model = self.options.embedding_model or self.options.model
        body = json.dumps({"model": model, "input": [self.prompt(), self.prompt()], "encoding_format": "base64"})
        self.ask("/v1/embeddings", "embeddings", body.encode(), lambda told: len(told["data"]) == 2)


class WorkerUser(Plain):
    """Actions of a downstream worker."""

    weight = 1

    @task
    def execute(self) -> None:
        body = json.dumps({"action": "process", "input": {"text": self.prompt()}, "params": {}, "config": {}})
        self.ask(self.options.worker_path, "worker", body.encode(), lambda told: told["success"] is True)


class AnthropicUser(Plain):
    """Plain Anthropic messages."""

    weight = 1

    def on_start(self) -> None:
        super().on_start()
        self.headers |= anthropic_headers(self.headers)

    @task
    def message(self) -> None:
        self.ask("/v1/messages", "messages", self.message_body(), lambda told: bool(told["stop_reason"]))


class Streaming(Caller, HttpUser):
    """A user whose answers are streamed: the row is the time to the headers, the rest are rows of their own."""

    abstract = True

    def stream(self, path: str, name: str, body: bytes, read: Callable[[Iterable[bytes], Timing], None]) -> None:
        """One streamed call. It has failed unless its end marker came."""
        timing = Timing()
        with self.client.post(
            path,
            data=body,
            headers=self.headers,
            name=self.row(name),
            catch_response=True,
            stream=True,
            timeout=(10.0, LONGEST_WAIT_S),
        ) as answer:
            if answer.status_code != 200:
                if not self.is_refusal(answer):
                    answer.failure(failure_of(answer))
                return
            try:
                read(answer.iter_content(chunk_size=None), timing)
            except Exception as error:
                answer.failure(f"the stream broke: {type(error).__name__}")
                return
            finally:
                answer.close()
            if not timing.is_complete:
                answer.failure("the stream ended without its end marker")
                return
            answer.success()
        for kind, value_ms in timing.metrics().items():
            self.report(kind, name, value_ms, timing.tokens)

    def report(self, kind: str, name: str, value_ms: float, tokens: int) -> None:
        """One value of a metric of our own; its length is the number of tokens."""
        self.environment.events.request.fire(
            request_type=kind,
            name=self.row(name),
            response_time=value_ms,
            response_length=tokens,
            exception=None,
            context={},
        )


class StreamUser(Streaming):
    """Streamed chat completions."""

    weight = 3

    @task
    def chat(self) -> None:
        body = self.chat_body(stream=True, stream_options={"include_usage": True})
        self.stream("/v1/chat/completions", "chat stream", body, read_chat)


class AnthropicStreamUser(Streaming):
    """Streamed Anthropic messages."""

    weight = 1

    def on_start(self) -> None:
        super().on_start()
        self.headers |= anthropic_headers(self.headers)

    @task
    def message(self) -> None:
        self.stream("/v1/messages", "messages stream", self.message_body(stream=True), read_messages)


def anthropic_headers(headers: dict[str, str]) -> dict[str, str]:
    """What an Anthropic client sends besides."""
    return {"anthropic-version": "2023-06-01", "x-api-key": headers["authorization"].removeprefix("Bearer ")}


def failure_of(answer: Any) -> str:
    """A short reason, the same for the same failure, so that the page can count them."""
    if not answer.status_code:
        return f"no answer: {type(getattr(answer, 'error', None)).__name__}"
    try:
        error = json.loads(answer.content)["error"]
        code = error.get("code") or error.get("type")
    except (ValueError, KeyError, TypeError, AttributeError):
        code = "no error body"
    return f"{answer.status_code} {code}"


def data_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The `data:` of each event, as the pieces come; lines end with LF or CRLF."""
    waiting = b""
    for piece in pieces:
        *lines, waiting = (waiting + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


def read_chat(pieces: Iterable[bytes], timing: Timing) -> None:
    """Reads a stream of chat chunks; `[DONE]` is its end. Raises ValueError for an error inside it."""
    for data in data_of(pieces):
        if data == b"[DONE]":
            timing.is_complete = True
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            raise ValueError("an error event")
        if any(choice["delta"].get("content") for choice in chunk.get("choices", ())):
            timing.token()


def read_messages(pieces: Iterable[bytes], timing: Timing) -> None:
    """Reads a stream of Anthropic events; `message_stop` is its end. Raises ValueError for an error inside it."""
    for data in data_of(pieces):
        event = json.loads(data)
        if event["type"] == "error":
            raise ValueError("an error event")
        if event["type"] == "content_block_delta":
            timing.token()
        timing.is_complete = timing.is_complete or event["type"] == "message_stop"
