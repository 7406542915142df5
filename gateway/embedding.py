"""From a text to its vector: by the small model that the extra `semantic` brings, or by an endpoint."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import orjson

#: What the extra's absence is told by.
EXTRA = 'install the extra: pip install "tidegate[semantic]"'


class EmbeddingError(Exception):
    """No vector to be had now: too many wait, the endpoint failed or answered something else."""


class Embedder(Protocol):
    """`name` tells models apart: their vectors are not to be compared."""

    name: str

    async def embed(self, text: str) -> Any:
        """The text's vector: a row of numbers. Raises EmbeddingError."""


class LocalModel:
    """wordllama's l2_supercat: 256 numbers, a 16 MB file inside the package, about 0.1 ms for a short message.

    It works in one thread of its own, so that the event loop goes on; at most `max_waiting` texts wait for it.
    """

    def __init__(self, max_waiting: int) -> None:
        self.name = "wordllama/l2_supercat/256"
        self._most = max_waiting
        self._waiting = 0
        self._embed = _load()
        self._thread = ThreadPoolExecutor(1, "embedding")

    async def embed(self, text: str) -> Any:
        if self._waiting >= self._most:
            raise EmbeddingError("too many texts wait for the local model")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, text)
        finally:
            self._waiting -= 1


def _load() -> Callable[[str], Any]:
    """The model, from its package; nothing is downloaded. Raises ImportError without the extra."""
    import wordllama

    # 0.4 looks for its tokenizer in a folder that it doesn't have; as a "cache" its own folder is searched rightly.
    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    return lambda text: model.embed([text])[0]


class Endpoint:
    """OpenAI's POST /embeddings of any server, this gateway's own included: there it is metered like any call."""

    def __init__(self, url: str, model: str, key: str, timeout_s: float, max_waiting: int) -> None:
        self.name = f"{url} {model}"
        self._url = url
        self._model = model
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._timeout_s = timeout_s
        self._most = max_waiting
        self._waiting = 0
        self._tls = ssl.create_default_context()

    async def embed(self, text: str) -> Any:
        if self._waiting >= self._most:
            raise EmbeddingError("too many texts wait for the embeddings endpoint")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(text)
        except TimeoutError:
            raise EmbeddingError(f"the embeddings endpoint took longer than {self._timeout_s} s") from None
        finally:
            self._waiting -= 1

    async def _ask(self, text: str) -> Any:
        import httpx2

        try:
            async with httpx2.AsyncClient(verify=self._tls, trust_env=False, headers=self._headers) as client:
                sent = {"model": self._model, "input": [text], "encoding_format": "float"}
                reply = await client.post(self._url, json=sent)
            if reply.status_code != 200:
                raise EmbeddingError(f"the embeddings endpoint answered {reply.status_code}")
            return orjson.loads(reply.content)["data"][0]["embedding"]
        except httpx2.HTTPError as error:
            raise EmbeddingError(f"the embeddings endpoint failed: {error!r}") from error
        except (orjson.JSONDecodeError, LookupError, TypeError) as error:
            raise EmbeddingError("the embeddings endpoint answered no embedding") from error
