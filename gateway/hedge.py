"""A race of two attempts: the second one starts when the first takes long; the first good answer wins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from gateway.upstream.base import UpstreamError, UpstreamResponse

Sending = Coroutine[Any, Any, UpstreamResponse]


async def race(
    first: Sending,
    delay_s: float,
    beside: Callable[[], Awaitable[Sending | None]],
    failed: Callable[[int, UpstreamError], None],
) -> tuple[int, asyncio.Task[UpstreamResponse]]:
    """Which of the two won (0 or 1), and what it came to. The other one is cancelled.

    `beside` begins the second after `delay_s`, or says None; `failed` hears of one that failed while the other went on.
    Where both fail, the last one counts; where both answer from 400 on, the first.
    """
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(first)]
    try:
        done, _ = await asyncio.wait(tasks, timeout=delay_s)
        if not done:
            second = await beside()
            if second is not None:
                tasks.append(loop.create_task(second))
        winner = await _winner(tasks, failed)
        index = tasks.index(winner)
        return index, tasks.pop(index)
    finally:
        for task in tasks:
            task.add_done_callback(_close)
            task.cancel()


async def _winner(
    tasks: list[asyncio.Task[UpstreamResponse]], failed: Callable[[int, UpstreamError], None]
) -> asyncio.Task[UpstreamResponse]:
    """The first task with a good answer, or else the first with any, or else the last one."""
    pending = set(tasks)
    answered: list[asyncio.Task[UpstreamResponse]] = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in sorted(done, key=tasks.index):
            error = task.exception()
            if error is None and task.result().status < 400:
                return task
            if error is None:
                answered.append(task)
            elif not isinstance(error, UpstreamError) or (not pending and task is max(done, key=tasks.index)):
                return answered[0] if answered else task
            else:
                failed(tasks.index(task), error)
    return answered[0]


def _close(task: asyncio.Task[UpstreamResponse]) -> None:
    """Lets go of a reply that came all the same; a loser's error is nobody's."""
    if not task.cancelled() and task.exception() is None:
        closing = asyncio.ensure_future(task.result().aclose())
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())
