"""The order in which a call tries its targets: as configured, equal ones balanced, those that are out at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from gateway.routing.standing import Standing
from gateway.routing.standings import Standings
from gateway.targets import Target

#: Scores closer than this are the same: then the weights alone decide.
_CLOSE = 0.8


class Balancer:
    """Two random choices by weight, the better of them by calls under way and peak-EWMA latency.

    https://www.eecs.harvard.edu/~michaelm/postscripts/handbook2001.pdf (two choices),
    https://linkerd.io/2016/03/16/beyond-round-robin-load-balancing-for-latency/ (peak EWMA)
    """

    def __init__(self, standings: Standings, random: Random) -> None:
        self._standings = standings
        self._random = random

    def rank(self, targets: list[Target], now_ns: int, most_out_percent: int) -> list[Target]:
        """A new list, or the same one where there is nothing to order."""
        if len(targets) < 2:
            return targets
        ranked: list[Target] = []
        group: list[Target] = []
        for target in targets:
            if target.weight:
                group.append(target)
                continue
            ranked += self._mixed(group)
            group = []
            ranked.append(target)
        ranked += self._mixed(group)
        if not self._is_any_out(targets):
            return ranked
        out = self.out(ranked, now_ns, most_out_percent)
        return [one for one in ranked if one not in out] + [one for one in ranked if one in out]

    def _is_any_out(self, targets: list[Target]) -> bool:
        """Quickly: whether `out` may find any."""
        of = self._standings.of
        for target in targets:
            standing = of(target)
            if standing.aside_until_ns or standing.is_troubled:
                return True
        return False

    def out(self, targets: Sequence[Target], now_ns: int, most_percent: int) -> list[Target]:
        """Those that get no call now: out of order or set aside, but never more than that share of them. Those that
        went out first stay out; a model's only target is always tried."""
        found = [(self._standings.of(target), target) for target in targets]
        out = [(_since(standing), target) for standing, target in found if standing.is_out(now_ns)]
        most = len(targets) * most_percent // 100
        if len(out) > most:
            out = sorted(out, key=lambda pair: pair[0])[:most]
        return [target for _, target in out]

    def _mixed(self, group: list[Target]) -> Iterable[Target]:
        if len(group) < 2:
            return group
        one, other = self._draw(group), self._draw(group)
        if one is not other:
            first, second = self._score(one), self._score(other)
            if second < first * _CLOSE:
                one = other
        rest = [target for target in group if target is not one]
        if len(rest) > 1:
            rest.sort(key=self._score)
        return [one, *rest]

    def _draw(self, group: list[Target]) -> Target:
        """One of them, by weight. (`Random.choices` takes four times as long.)"""
        left = self._random.random() * sum([target.weight for target in group])
        for target in group:
            left -= target.weight
            if left < 0:
                return target
        return group[-1]

    def _score(self, target: Target) -> float:
        return self._standings.of(target).score(target.weight)


def _since(standing: Standing) -> int:
    """When it went out; what its provider merely asked to leave alone counts as last."""
    changed = [
        breaker.changed_ns for breaker in (standing.breaker, standing.place.breaker) if breaker.state != "closed"
    ]
    return min(changed, default=standing.aside_until_ns)
