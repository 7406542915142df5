"""Limits that are passed or not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """One figure and its bound: at most, or at least."""

    what: str
    value: float
    bound: float
    at_least: bool = False
    unit: str = ""

    @property
    def passed(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{'pass' if self.passed else 'FAIL'}  {self.what}: {self.value:.4g} {sign} {self.bound:.4g} {self.unit}"
