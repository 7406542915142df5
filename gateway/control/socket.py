"""The admin socket: how commands ask the process that owns the data directory, one JSON line each way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

Verb = Callable[..., Awaitable[Any]]


class NotRunningError(Exception):
    """No gateway listens on the data directory's socket."""


class AdminError(Exception):
    """The running gateway refused or failed the verb; the message is its own."""


class AdminSocket:
    """Serves verbs on data_dir/tidegate.sock (0600)."""

    def __init__(self, data_dir: Path, verbs: Mapping[str, Verb]) -> None:
        self.verbs = dict(verbs)  # may be added to while serving
        self._data_dir = data_dir

    async def start(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


async def ask(data_dir: Path, verb: str, **args: Any) -> Any:
    """The verb's result from the running gateway. Raises NotRunningError, AdminError."""
    raise NotImplementedError
