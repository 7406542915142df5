"""SDK clients and example requests for every route of the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI

from gateway.routes import TABLE, Route

KEY = "tg-test-shared-key"
OTHER_KEY = "tg-test-other-key"

#: Bodies by route; routes that need none are not here.
BODIES: dict[str, Any] = {
    "chat": {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]},
    "responses": {"model": "demo-small", "input": "hi"},
    "completions": {"model": "demo-small", "prompt": "hi"},
    "embeddings": {"model": "demo-small", "input": "hi"},
    "moderations": {"model": "demo-small", "input": "hi"},
    "images": {"model": "demo-small", "prompt": "a tide", "n": 1, "size": "1024x1024"},
    "audio": {"model": "demo-small", "input": "hi", "voice": "alloy"},
    "messages": {"model": "demo-small", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]},
    "count_tokens": {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]},
    "batches": {"input_file_id": "object-0000000000", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    "message_batches": {"requests": []},
    "other": {"hello": "world"},
    "files": {"purpose": "batch"},
    "worker": {"action": "process"},
    "chat_objects": {"metadata": {}},
    "response_objects": {},
}
REST = {"images": "generations", "audio": "speech", "files": "content", "models": "demo-small"}
DATA_ROUTES = [route for route in TABLE if route.plane == "data"]


class Example:
    """A request that fits one route and one of its methods."""

    def __init__(self, route: Route, method: str, number: int) -> None:
        self.route = route
        self.method = method
        self.object_id = f"object-{number:010d}"
        path = route.template.replace("{id}", "echo" if route.name == "worker" else self.object_id)
        self.path = path.replace("{path}", REST.get(route.name, "cancel"))
        self.body = BODIES.get(route.name) if method in ("POST", "PUT", "PATCH") else None
        self.headers = {"anthropic_version": "2023-06-01"} if route.dialect == "anthropic" else {}

    def __str__(self) -> str:
        return f"{self.method} {self.route.template}"


EXAMPLES = [
    Example(route, method, number)
    for number, (route, method) in enumerate(
        (route, method) for route in DATA_ROUTES for method in sorted(route.methods)
    )
]


@pytest.fixture
def openai(gateway: Any) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.address}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic(gateway: Any) -> Iterator[Anthropic]:
    with Anthropic(base_url=gateway.address, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return EXAMPLES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `example` runs on every route and method."""
    if "example" in metafunc.fixturenames:
        metafunc.parametrize("example", EXAMPLES, ids=str)
