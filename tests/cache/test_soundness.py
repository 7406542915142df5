"""A success that is none of its route is never given again."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

CHOICE = b'{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}'
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
START = b'data: {"type":"message_start","message":{"type":"message","content":[],"stop_reason":null}}\n\n'
STOP = b'data: {"type":"message_stop"}\n\n'
DELTA = b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}\n\n'

#: By route: bodies that are kept, and such that are not.
WHOLE: dict[str, tuple[list[bytes], list[bytes]]] = {
    "chat": (
        [b'{"choices":[%b]}' % CHOICE, b'{"error":null,"choices":[%b],"usage":null}' % CHOICE],
        [b"{}", b'{"detail":"no"}', b'{"message":"Internal"}', b'{"choices":[]}', b'{"choices":[{"message":null}]}'],
    ),
    "completions": ([b'{"choices":[{"text":"x"}]}'], [b'{"choices":[{"text":null}]}', b'{"detail":"no"}']),
    "embeddings": ([b'{"data":[{"embedding":[0.5]}]}'], [b'{"data":[]}', b'{"data":null}', b'{"data":[{}]}']),
    "moderations": ([b'{"results":[{"flagged":false}]}'], [b"{}", b'{"results":[]}']),
    "responses": (
        [b'{"status":"completed","output":[]}', b'{"status":"incomplete","output":[]}'],
        [b'{"status":"in_progress","output":[]}', b'{"status":"queued","output":[]}', b'{"detail":"no"}'],
    ),
    "messages": ([b'{"type":"message","content":[]}'], [b'{"type":"message","content":null}', b'{"type":"other"}']),
    "count_tokens": ([b'{"input_tokens":3}'], [b"{}", b'{"input_tokens":null}']),
}
STREAMS: dict[str, tuple[list[bytes], list[bytes]]] = {
    "chat": ([CHUNK + LAST + DONE, CHUNK + b": well\n\n" + LAST + DONE], [DONE, CHUNK + DONE]),
    "messages": ([START + DELTA + STOP], [STOP, START + STOP]),
}
CASES = [
    (route, stream, body, is_kept)
    for stream, table in ((False, WHOLE), (True, STREAMS))
    for route, (kept, others) in table.items()
    for is_kept, bodies in ((True, kept), (False, others))
    for body in bodies
]


class Odd(ThreadingHTTPServer):
    """A provider that answers every POST with 200 and `body`."""

    body, kind = b"", "application/json"


class Answering(BaseHTTPRequestHandler):
    server: Odd

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", self.server.kind)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def odd() -> Iterator[Odd]:
    with Odd(("127.0.0.1", 0), Answering) as provider:
        thread = Thread(target=provider.serve_forever)
        thread.start()
        yield provider
        provider.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def odd_server(odd: Odd, start_site: Any) -> Any:
    tables = [
        f'[providers.{kind}]\nkind = "{kind}"\nbase_url = "http://127.0.0.1:{odd.server_port}{path}"\n'
        f'api_key = "x"\n[models.odd-{kind}]\ntargets = ["{kind}/odd"]\n'
        for kind, path in (("openai", "/v1"), ("anthropic", ""))
    ]
    return start_site("\n".join(tables))


def asked(route: str, site: Any, stream: bool) -> tuple[str, dict[str, Any]]:
    """A path, and a question that nobody asked before."""
    body = {**site.chat(), "model": "odd-openai", "stream": stream}
    messages = body.pop("messages")
    text = messages[0]["content"]
    if route in ("messages", "count_tokens"):
        body = {**body, "model": "odd-anthropic", "messages": messages}
        return ("/v1/messages", body) if route == "messages" else ("/v1/messages/count_tokens", body)
    if route == "chat":
        return "/v1/chat/completions", {**body, "messages": messages}
    if route == "responses":
        return "/v1/responses", {"model": body["model"], "temperature": 0, "store": False, "input": text}
    if route == "completions":
        return "/v1/completions", {**body, "prompt": text}
    return f"/v1/{route}", {"model": body["model"], "input": text}


@pytest.mark.parametrize(("route", "stream", "body", "is_kept"), CASES)
async def test_only_what_its_route_answers_with_is_kept(
    odd: Odd, odd_server: Any, make_site: Any, route: str, stream: bool, body: bytes, is_kept: bool
) -> None:
    odd.body, odd.kind = body, "text/event-stream" if stream else "application/json"
    site = make_site(odd_server)
    path, question = asked(route, site, stream)
    answers = [await site.ask(question, path=path) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {200}, "it goes out as it came"
    told = [answer.headers["x-tidegate-cache"] for answer in answers]
    assert told == ["miss", "hit" if is_kept else "miss"]
