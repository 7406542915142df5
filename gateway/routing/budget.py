"""The retry budget of one provider: repeated exchanges are a share of its calls, whatever goes wrong."""

from __future__ import annotations

#: Quiet hours don't save up for a storm: at most so many repeated exchanges wait to be made.
_MOST = 100.0


class RetryBudget:
    """A token bucket filled by calls, not by time. `share` of a token a call, `reserve` tokens to begin with."""

    __slots__ = ("denied", "share", "tokens", "used")

    def __init__(self, share: float, reserve: float) -> None:
        self.share = share
        self.tokens = reserve
        self.used = 0
        self.denied = 0

    def called(self) -> None:
        """One more call has come."""
        self.tokens = min(_MOST, self.tokens + self.share)

    def take(self) -> bool:
        """Whether one more exchange may be made."""
        if self.tokens < 1.0:
            self.denied += 1
            return False
        self.tokens -= 1.0
        self.used += 1
        return True

    def give_back(self) -> None:
        """What was taken was not used."""
        self.tokens += 1.0
        self.used -= 1
