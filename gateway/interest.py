"""Who still wants the answer to one call: the last to leave cancels it (../docs/idempotency.md)."""

from __future__ import annotations

from collections.abc import Callable


class Interest:
    """Counts the caller and those who wait for the same answer, until it is there."""

    __slots__ = ("_cancel", "_count", "_settled")

    def __init__(self) -> None:
        self._count = 1  # the caller
        self._settled = False
        self._cancel: Callable[[], None] | None = None

    def join(self) -> None:
        """One more waits for the answer."""
        self._count += 1

    def leave(self) -> None:
        """One of those who waited does so no more."""
        self._count -= 1
        if self._count == 0 and self._cancel is not None and not self._settled:
            self._cancel()

    def caller_leaves(self, cancel: Callable[[], None]) -> None:
        """The caller leaves. `cancel` is called at once, or when the last of the others leaves."""
        if self._settled:
            cancel()
            return
        self._cancel = cancel
        self.leave()

    def settle(self) -> None:
        """The answer is known to those who wait; whether it reaches the caller is the caller's own business."""
        self._settled = True
