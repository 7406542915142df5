"""Notices that the client of a call left, and cancels the call's task unless others want its answer too."""

from __future__ import annotations

import asyncio

from gateway.arrival import Arrival
from gateway.call import Call


class Leaving:
    """Uses our protocol's hook where it is there; under another server a task watches for the disconnect."""

    __slots__ = ("_arrival", "_call", "_done", "_left_already", "_watcher", "gone")

    def __init__(self, arrival: Arrival, call: Call) -> None:
        self.gone = False  # and cancelled for it
        self._arrival = arrival
        self._call = call
        self._left_already = False
        self._done = False
        self._watcher: asyncio.Task[None] | None = None
        if arrival.exchange is not None:
            arrival.exchange.on_disconnect(self._left)

    def watch(self) -> None:
        """From now on: the request's body is complete, so the next message can only be the disconnect."""
        if self._arrival.exchange is None and self._watcher is None:
            self._watcher = asyncio.ensure_future(self._watch())

    def stop(self) -> None:
        """The answer is complete; leaving is no longer an event."""
        self._done = True
        if self._watcher is not None:
            self._watcher.cancel()
        if self.gone and self._arrival.task is not None:
            self._arrival.task.uncancel()

    async def _watch(self) -> None:
        while (await self._arrival.receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        if self._done or self._left_already:
            return
        self._left_already = self._call.left = True
        if self._call.interest is None:
            self._cancel()
        else:
            self._call.interest.caller_leaves(self._cancel)

    def _cancel(self) -> None:
        if self._done or self._arrival.task is None:
            return
        self.gone = True
        self._arrival.task.cancel()
