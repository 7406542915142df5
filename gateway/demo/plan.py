"""Knows the plan: rules that give faults to calls which carry none themselves.

A rule is a table. What it matches (all that it names): `model` and `path` (with `*` and `?`), `key` (the credential's
end). When, among the calls it matches, counted from 1: `nth` (a number or a list), `every`, `from`, `until`, `times`
(how often at most), `after_s` and `for_s` (a window counted from when the plan was set). What it does: `fake`, a text
like the header's or a table of the same keys. The first rule that matches decides; one out of its time passes on.
`"on": "connect"` makes a rule about accepting a connection: its `fake` may be reset, halfopen or garbage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from gateway.demo.script import Script, parse

KEYS = frozenset({"model", "path", "key", "nth", "every", "from", "until", "times", "after_s", "for_s", "fake", "on"})


@dataclass(slots=True)
class Rule:
    """One rule and how often it was met. Built by `read_rule`."""

    script: Script
    text: str
    model: str = "*"
    path: str = "*"
    key: str = ""
    nth: frozenset[int] = frozenset()
    every: int = 1
    first: int = 1
    last: float = float("inf")
    times: float = float("inf")
    after_s: float = 0.0
    for_s: float = float("inf")
    connects: bool = False
    met: int = 0
    used: int = 0

    def matches(self, model: str, path: str, key: str) -> bool:
        """True where the call is one of this rule's."""
        return fnmatchcase(model, self.model) and fnmatchcase(path, self.path) and key.endswith(self.key)

    def acts(self, elapsed_s: float) -> bool:
        """Counts the call, and says whether it is this rule's turn."""
        self.met += 1
        turn = self.met in self.nth if self.nth else (self.met - self.first) % self.every == 0
        acts = (
            turn
            and self.first <= self.met <= self.last
            and self.used < self.times
            and self.after_s <= elapsed_s < self.after_s + self.for_s
        )
        self.used += acts
        return acts


def read_rule(table: Mapping[str, Any]) -> Rule:
    """Reads a rule. Raises ValueError that names what is wrong."""
    unknown = set(table) - KEYS
    if unknown:
        raise ValueError(f"plan: unknown key {sorted(unknown)[0]!r}; known are {', '.join(sorted(KEYS))}")
    if "fake" not in table:
        raise ValueError("plan: a rule needs 'fake'")
    nth = table.get("nth", [])
    every = int(table.get("every", 1))
    if every < 1:
        raise ValueError("plan: 'every' must be at least 1")
    return Rule(
        script=parse(table["fake"]),
        text=str(table["fake"]),
        model=str(table.get("model", "*")),
        path=str(table.get("path", "*")),
        key=str(table.get("key", "")),
        nth=frozenset([int(nth)] if isinstance(nth, int) else map(int, nth)),
        every=every,
        first=int(table.get("from", every)),
        last=float(table.get("until", "inf")),
        times=float(table.get("times", "inf")),
        after_s=float(table.get("after_s", 0)),
        for_s=float(table.get("for_s", "inf")),
        connects=table.get("on") == "connect",
    )


@dataclass(slots=True)
class Plan:
    """The rules in force. Time is the loop's clock, in seconds."""

    rules: list[Rule] = field(default_factory=list)
    since: float = 0.0

    @classmethod
    def read(cls, tables: Iterable[Mapping[str, Any]], now: float) -> Plan:
        """Reads a list of rules. Raises ValueError."""
        return cls([read_rule(table) for table in tables], now)

    def script_for(self, model: str, path: str, key: str, now: float) -> tuple[Script, str] | None:
        """The faults for one call and their text; None where no rule acts."""
        for rule in self.rules:
            if not rule.connects and rule.matches(model, path, key) and rule.acts(now - self.since):
                return rule.script, rule.text
        return None

    def on_connect(self, now: float) -> Script | None:
        """The faults for a connection just accepted."""
        for rule in self.rules:
            if rule.connects and rule.acts(now - self.since):
                return rule.script
        return None

    def told(self) -> list[dict[str, Any]]:
        """The rules with how often each was met and used."""
        return [
            {"fake": rule.text, "model": rule.model, "path": rule.path, "met": rule.met, "used": rule.used}
            for rule in self.rules
        ]
