"""How limits are written, `600/minute` and `50 USD`, as exact integers and back.

The grammar of rates is that of `limits` (https://limits.readthedocs.io/en/stable/quickstart.html#rate-limit-string-notation);
a test compares the two. Read here, since importing that package takes longer than the gateway may take to start.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import gcd

from gateway.state.store import Bucket, Limit, Window

_NS = 1_000_000_000
#: Seconds of each unit; a month has 30 days and a year twelve of them.
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "month": 2_592_000, "year": 31_104_000}
_RATE = re.compile(r"\s*([0-9]+)\s*(?:/|per)\s*([0-9]+)?\s*([a-z]+)\s*", re.IGNORECASE | re.ASCII)
#: Up to here a rate is a token bucket, which lets a burst through and then the rate; above it is a sliding window.
LONGEST_BUCKET_NS = 3600 * _NS
PUSD = 1_000_000_000_000  # pico-dollars a dollar


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` units every `per_ns` nanoseconds; `span` says the time in words."""

    amount: int
    per_ns: int
    span: str

    def scaled(self, milli: int) -> Rate:
        """So many thousandths of the rate; the amount is rounded down, but a rate above zero stays above zero."""
        return Rate(max(self.amount * milli // 1000, min(self.amount, milli, 1)), self.per_ns, self.span)

    def limit(self, key: str, header: str) -> Limit:
        """The limit of this rate: a token bucket with a burst of the amount, or from a day on a sliding window."""
        if self.per_ns > LONGEST_BUCKET_NS:
            return Window(key, self.amount, header, self.per_ns)
        common = gcd(self.amount, self.per_ns)  # small numbers are fast, and the same rate
        return Bucket(key, self.amount, header, self.amount // common, self.per_ns // common)


def parse_rate(text: str) -> Rate:
    """ "600/minute", "5 per 2 hours". Raises ValueError."""
    found = _RATE.fullmatch(text)
    seconds = None if found is None else SECONDS.get(found[3].lower().removesuffix("s"))
    if found is None or seconds is None:
        raise ValueError(f'{text!r} is not a rate such as "600/minute", "5 per 2 hours" or "1000000/day"')
    several = int(found[2]) if found[2] and int(found[2]) else 1
    unit = found[3].lower().removesuffix("s")
    return Rate(int(found[1]), several * seconds * _NS, unit if several == 1 else f"{several} {unit}s")


def pusd_of(usd: object) -> int:
    """Pico-dollars of an amount in dollars as a person wrote it: a number or its decimal text. Raises ValueError."""
    try:
        exact = Fraction(Decimal(str(usd))) * PUSD
    except (InvalidOperation, ValueError, OverflowError):
        exact = Fraction(-1)
    if exact < 0 or exact.denominator != 1:
        raise ValueError(f"{usd!r} is not an amount in dollars: 0 or more, at most 12 decimals")
    return exact.numerator


def usd_text(pusd: int) -> str:
    """Dollars with at least two decimals, exact: "50.00", "0.0000025"."""
    whole, rest = divmod(abs(pusd), PUSD)
    decimals = f"{rest:012}".rstrip("0").ljust(2, "0")
    return f"{'-' if pusd < 0 else ''}{whole:,}.{decimals}"


def charge_of(cost_pusd: int, discount_percent: int) -> int:
    """What a client of a tier with this discount pays for what a provider charges; rounded once, half up."""
    if not discount_percent:
        return cost_pusd
    return (cost_pusd * (100 - discount_percent) + 50) // 100
