"""Who still wants the answer to one call: the last to leave cancels it (../docs/idempotency.md)."""

from __future__ import annotations

from collections.abc import Callable


class Interest:
    """Counts the caller and those who wait for the same answer, until it is there."""

    __slots__ = ("_cancel", "_count", "_settled", "_unwanted")

    def __init__(self) -> None:
        self._count = 1  # the caller
        self._settled = False
        self._cancel: Callable[[], None] | None = None
        self._unwanted: Callable[[], None] | None = None  # the call works for others besides, who count as one

    def join(self) -> None:
        """One more waits for the answer."""
        self._count += 1

    def leave(self) -> None:
        """One of those who waited does so no more."""
        self._count -= 1
        if self._cancel is None or self._settled:
            return
        if self._count == 0:
            self._cancel()
        elif self._count == 1 and self._unwanted is not None:
            self._unwanted()

    def keep(self, unwanted: Callable[[], None]) -> None:
        """The call does work for others as well: it goes on until `let_go`. `unwanted` is called when nobody else waits
        for its answer any more."""
        self._count += 1
        self._unwanted = unwanted

    @property
    def is_wanted(self) -> bool:
        """Of a call that does work for others as well: whether anybody waits for its own answer."""
        return self._cancel is None or self._count > 1

    def let_go(self) -> None:
        """That work is done."""
        if self._unwanted is not None:
            self._unwanted = None
            self.leave()

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
