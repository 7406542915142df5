"""What the load sends: bodies of fixed sizes and the headers an OpenAI SDK sends with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

SMALL, LARGE = 1_200, 38_000  # bytes of a body
PATH = "/v1/chat/completions"

# As openai-python sends them (async client); Host, Content-Length and Authorization are added where they are known.
SDK_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Content-Type": "application/json",
    "User-Agent": "AsyncOpenAI/Python 3.57.0",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Async": "async:asyncio",
    "X-Stainless-Lang": "python",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Package-Version": "3.57.0",
    "X-Stainless-Raw-Response": "true",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Read-Timeout": "600",
    "X-Stainless-Runtime": "CPython",
    "X-Stainless-Runtime-Version": "3.11.7",
}

PROSE = (
    "The tide comes in twice a day and the keeper of the gate writes down what passes: the hour, the boat, its draught "
    'and its toll. "When two boats arrive together," he says, "the one that has waited longer goes first." '
)


@dataclass(frozen=True)
class Request:
    """One request of a kind: its model decides what the responder does with it."""

    model: str
    body: bytes
    headers: dict[str, str]

    @property
    def chunks(self) -> int:
        """Content chunks of the stream it asks for; zero if it asks for none."""
        return int(self.model.rsplit("-", 1)[1]) if self.model[-1].isdigit() else 0

    def raw(self, host: str) -> bytes:
        """The bytes of the whole request."""
        headers = {"Host": host, **self.headers, "Content-Length": str(len(self.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {PATH} HTTP/1.1\r\n{lines}\r\n".encode() + self.body

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Files with the body and the headers, for wrk."""
        folder.mkdir(parents=True, exist_ok=True)
        body, headers = folder / "body", folder / "headers"
        body.write_bytes(self.body)
        headers.write_text("".join(f"{name}: {value}\n" for name, value in self.headers.items()))
        return body, headers


def chat(model: str, size: int, headers: dict[str, str]) -> Request:
    """A chat completion of `size` bytes; streamed when the model's name ends in a number of chunks."""
    fields: dict[str, object] = {
        "model": model,
        "messages": [{"role": "system", "content": "You keep the gate."}, {"role": "user", "content": ""}],
        "max_tokens": 400,
        "temperature": 0.7,
    }
    if model[-1].isdigit():
        fields["stream"] = True
    room, once = size - len(_compact(fields)), len(_compact(PROSE)) - 2
    text = PROSE * (room // once) + "." * (room % once)
    fields["messages"] = [{"role": "system", "content": "You keep the gate."}, {"role": "user", "content": text}]
    return Request(model, _compact(fields), {**SDK_HEADERS, **headers})


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
