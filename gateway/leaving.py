"""Notices that the client of a call left, and cancels the call's task."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from gateway.bodies import Receive


class Leaving:
    """Uses our protocol's hook where it is there; under another server a task watches for the disconnect."""

    __slots__ = ("_done", "_hook", "_receive", "_task", "_watcher", "gone", "receive")

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self.gone = False
        self.receive = receive
        self._done = False
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        extensions = scope.get("extensions")
        self._hook = extensions.get("tidegate") if extensions else None
        if self._hook is not None:
            self._hook.on_disconnect(self._left)

    def watch(self) -> None:
        """From now on: the request's body is complete, so the next message can only be the disconnect."""
        if self._hook is None and self._watcher is None:
            self._watcher = asyncio.ensure_future(self._watch())

    def stop(self) -> None:
        """The answer is complete; leaving is no longer an event."""
        self._done = True
        if self._watcher is not None:
            self._watcher.cancel()
        if self.gone and self._task is not None:
            self._task.uncancel()

    async def _watch(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        if self._done or self.gone or self._task is None:
            return
        self.gone = True
        self._task.cancel()
