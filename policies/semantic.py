"""Almost the same question gets the same answer: only the last message may differ, and only in how it is put.

What may be given again, and what makes two messages differ: ../docs/semantic.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field

from gateway.answers import Answer
from gateway.call import Call, Outcome, Reply
from gateway.embedding import EXTRA, Embedder, EmbeddingError, Endpoint, LocalModel
from gateway.errors import Header
from gateway.likeness import Marks, marks_of
from gateway.policy import Gate, Policy
from gateway.prices import usd
from gateway.question import answer_of, digest_of, stands_alone, wish_of
from gateway.recording import Room

if TYPE_CHECKING:
    from gateway.alike import Alike, Vector

_MIB = 1_048_576
_NS = 1_000_000_000
Route = Literal["chat", "messages"]
_ROUTES = ("chat", "messages")
#: Fields of a body that make its answer more than words about its last message.
_TOOLS = ("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "mcp_servers", "audio")
#: Bound of what waits for the embedding at one time.
_WAITING = 64

Cosine = Annotated[float, Field(ge=0.5, le=1)]
Seconds = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True)
class Asked:
    """A call's last message, and all the rest of its question as a digest."""

    part: bytes
    text: str
    key: bytes
    marks: Marks


@dataclass
class Semantic(Policy):
    """After `cache`, whose answers it doesn't share: it keeps its own, in the same room."""

    enabled: bool = False
    threshold: Cosine = 0.875
    #: By route, instead of threshold.
    thresholds: Mapping[Route, Cosine] = field(default_factory=dict)
    same_words: bool = True  # every word of content has to be in both messages
    ttl_s: Seconds = 3_600
    #: By route, instead of ttl_s; 0 switches it off there.
    routes: Mapping[Route, Seconds] = field(default_factory=dict)
    max_questions: Positive = 10_000
    message_bytes: Positive = 2_048  # a longer last message is left alone
    answer_mib: Positive = 1  # a longer answer is not kept
    sampled: bool = False  # also calls whose temperature is above 0, or not said
    share: Literal["client", "org"] = "client"
    endpoint: str = ""  # POST /v1/embeddings of any server, instead of the local model
    endpoint_model: str = ""
    endpoint_key: str = ""
    endpoint_timeout_s: Annotated[float, Field(gt=0, le=30)] = 2

    fail_open: ClassVar[bool] = True
    after: ClassVar[tuple[str, ...]] = ("identity", "access", "idempotency", "quota", "cache")

    def __post_init__(self) -> None:
        if not self.enabled:
            return
        for needed in ("numpy",) if self.endpoint else ("numpy", "wordllama"):
            if find_spec(needed) is None:
                raise ValueError(f"the semantic cache needs {needed}, which is not installed: {EXTRA}")
        if bool(self.endpoint) != bool(self.endpoint_model):
            raise ValueError("endpoint and endpoint_model go together")

    def provide(self, gate: Gate) -> None:
        self._answers = gate.answers
        self._now = gate.clock.now_ns
        self._room = Room(64 * _MIB)
        counter = gate.metrics.counter
        self._lookups = counter("tidegate_semantic_lookups_total", "Look-ups by meaning.", ("route", "result"))
        self._saved = counter("tidegate_semantic_saved_picodollars_total", "Cost that such hits saved.", ("route",))
        if self.enabled:
            self._embedder = self._made()
            self._alike = self._index()

    def _made(self) -> Embedder:
        """The embedder, the one of before a reload if it is the same."""
        known = self._answers.embedder
        made: Embedder | None = None
        if self.endpoint:
            made = Endpoint(
                self.endpoint, self.endpoint_model, self.endpoint_key, float(self.endpoint_timeout_s), _WAITING
            )
        elif not isinstance(known, LocalModel):
            made = LocalModel(_WAITING)
        if made is not None:
            self._answers.embedder = known = made
        assert known is not None
        return known

    def _index(self) -> Alike:
        from gateway.alike import Alike

        if self._answers.alike is None:
            self._answers.alike = Alike(self.max_questions)
        self._answers.alike.max_rows = self.max_questions
        return self._answers.alike

    def concerns(self, call: Call) -> bool:
        return self.enabled and call.route.name in _ROUTES and call.method == "POST" and isinstance(call.json, dict)

    async def apply(self, call: Call) -> AsyncGenerator[None, Outcome]:
        ttl_s = self.routes.get(cast("Route", call.route.name), self.ttl_s)
        wish = wish_of(call)
        asked = self._asked(call) if ttl_s and (wish.look or wish.keep) else None
        if asked is None:
            return
        try:
            vector = await self._vector(asked.text)
        except EmbeddingError:
            self._lookups.add((call.route.name, "error"))
            return
        purges = self._answers.purges
        if wish.look:
            age_s = ttl_s if wish.max_age_s is None else min(ttl_s, wish.max_age_s)
            found = self._look(call, asked, vector, age_s)
            if found is not None:
                call.answer(self._replay(call, *found))
                return
            self._lookups.add((call.route.name, "miss"))
        if not wish.keep:
            return
        targets = call.targets
        call.tap(self.answer_mib * _MIB, self._room)
        outcome = yield
        answer = answer_of(call, asked.key, outcome, targets, self._now(), ttl_s)
        if answer is not None:
            self._answers.put(asked.key, answer, purges)
            self._alike.add(asked.part, asked.key, vector, asked.marks, self._lives)

    async def _vector(self, text: str) -> Vector:
        from gateway.alike import unit

        try:
            return unit(await self._embedder.embed(text))
        except (ValueError, TypeError) as error:
            raise EmbeddingError(str(error)) from error

    def _asked(self, call: Call) -> Asked | None:
        """What may be answered by likeness: a text, and nothing but text, without tools."""
        body = call.json
        if any(body.get(name) is not None for name in _TOOLS) or not stands_alone(call, sampled=self.sampled):
            return None
        messages = body.get("messages")
        text = last_text(messages)
        if text is None or not text.strip() or len(text.encode()) > self.message_bytes:
            return None
        rest = {**body, "messages": [*messages[:-1], {**messages[-1], "content": None}]}
        part = digest_of(call, self.share, [self._embedder.name, rest])
        key = hashlib.blake2b(part + text.encode(), digest_size=24, person=b"semantic").digest()
        return Asked(part, text, key, marks_of(text))

    def _look(self, call: Call, asked: Asked, vector: Vector, age_s: int) -> tuple[float, Answer] | None:
        """The nearest answer that is near enough, still kept and not too old."""
        least = float(self.thresholds.get(cast("Route", call.route.name), self.threshold))
        near = self._alike.nearest(asked.part, vector, asked.marks, least, same_words=self.same_words)
        for similarity, key in near:
            answer = self._answers.get(key)
            if answer is None:
                self._alike.forget(asked.part, key)
            elif self._now() - answer.made_ns <= age_s * _NS:
                return similarity, answer
        return None

    def _lives(self, key: bytes) -> bool:
        return self._answers.get(key) is not None

    def _replay(self, call: Call, similarity: float, answer: Answer) -> Reply:
        self._lookups.add((call.route.name, "hit"))
        if self.mode == "enforce":  # observed, the call is made and paid for
            self._saved.add((call.route.name,), answer.cost_pusd)
        call.notes["saving"] = {
            "method": "semantic",
            "original_pusd": answer.cost_pusd,
            "actual_pusd": 0,
            "of": answer.call,
            "similarity": round(similarity, 4),
        }
        # `cache` has said that it missed; the caller is told what came of it.
        call.reply_headers = [header for header in call.reply_headers if header[0] != b"x-tidegate-cache"]
        headers: list[Header] = [
            *answer.headers,
            (b"age", b"%d" % ((self._now() - answer.made_ns) // _NS)),
            (b"x-tidegate-cache", b"semantic"),
            (b"x-tidegate-similarity", b"%.2f" % (int(similarity * 100) / 100)),
            (b"x-tidegate-cache-key", answer.key.encode()),
            (b"x-tidegate-saved", usd(answer.cost_pusd).encode()),
            (b"x-tidegate-cost", b"0"),
        ]
        return Reply(answer.status, headers, answer.chunks if answer.is_stream else answer.chunks[0])


def last_text(messages: Any) -> str | None:
    """The last message's text, if it is the user's, and if all messages are of text alone: no image, no tool's call or
    result."""
    if not isinstance(messages, list) or not messages:
        return None
    texts = [_text(message) for message in messages]
    if any(text is None for text in texts) or messages[-1].get("role") != "user":
        return None
    return texts[-1]


def _text(message: Any) -> str | None:
    if not isinstance(message, dict) or message.get("role") not in ("system", "developer", "user", "assistant"):
        return None
    if message.keys() - {"role", "content", "name"}:
        return None  # tool_calls, function_call, audio, and whatever comes
    content = message.get("content")
    if isinstance(content, str):
        return content
    # One part of plain text is that text; several, or with a mark of their own, are left alone.
    part = content[0] if isinstance(content, list) and len(content) == 1 else None
    if isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text":
        return part["text"] if isinstance(part["text"], str) else None
    return None
