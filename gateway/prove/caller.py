"""Small chat completions to one gateway, timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import httpx2


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one call. `status` 0: no answer. Seconds from sending to the whole answer."""

    status: int
    took_s: float
    headers: httpx2.Headers

    @property
    def served(self) -> bool:
        return self.status == 200

    @property
    def refused(self) -> bool:
        return self.status in (429, 503, 529)

    @property
    def tells_when(self) -> bool:
        """A refusal that says when to come back."""
        return "retry-after" in self.headers or "retry-after-ms" in self.headers

    def number(self, header: str) -> int | None:
        """A header that is a whole number."""
        said = self.headers.get(header, "")
        return int(said) if said.isascii() and said.isdigit() else None


class Caller:
    """Calls with one key; many may be under way at once."""

    def __init__(self, origin: str, key: str, model: str, timeout_s: float) -> None:
        base = origin.rstrip("/")
        self._url = (base if base.endswith("/v1") else f"{base}/v1") + "/chat/completions"
        self._model = model
        self._numbers = count()
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        headers = {"authorization": f"Bearer {key}"}
        self._client = httpx2.AsyncClient(headers=headers, limits=limits, timeout=timeout_s)

    async def call(self) -> Reply:
        """One call, of one token; each with words of its own, so that no cache answers."""
        said = f"Say yes. ({next(self._numbers)}, {time.time_ns()})"
        body = {"model": self._model, "max_tokens": 1, "messages": [{"role": "user", "content": said}]}
        began = time.perf_counter()
        try:
            answer = await self._client.post(self._url, json=body)
        except httpx2.HTTPError:
            return Reply(0, time.perf_counter() - began, httpx2.Headers())
        return Reply(answer.status_code, time.perf_counter() - began, answer.headers)

    async def aclose(self) -> None:
        await self._client.aclose()


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Of the values, by nearest rank; None where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else None


def ms(values: Sequence[float], percent: float) -> float | None:
    """The same of seconds, in milliseconds."""
    found = percentile(values, percent)
    return None if found is None else round(found * 1000, 1)
