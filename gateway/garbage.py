"""The cycle collector's share of the work: little, since calls leave no cycles behind when they end well."""

from __future__ import annotations

import gc

#: New containers before the youngest generation is looked at. A hundred calls under way hold some 10,000; at Python's
#: own 700 they would be looked at again and again, for a twentieth of all processor time.
YOUNG = 50_000
#: Rounds of one generation before the next older one is looked at too.
MIDDLE, OLD = 20, 20


def hold() -> None:
    """While all is being loaded: looking through ten thousand clients again and again takes half of that time."""
    gc.disable()


def settle() -> None:
    """Once, when all is loaded: what is there now stays, so no round has to look at it again."""
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    gc.enable()
