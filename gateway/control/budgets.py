"""What operators ask and tell about budgets: how they stand, top-ups, overrides, and the history of both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast, get_args

from gateway.clock import Clock
from gateway.directory import Directory
from gateway.events import Events
from gateway.ids import Ids
from gateway.periods import Adjustment, Adjustments, Scope, Span, is_period, period_at, zone_of
from gateway.rates import pusd_of, usd_text

if TYPE_CHECKING:
    from gateway.control.socket import Verb
    from gateway.policy import Policy

#: The most that a change can say: what the database's column holds.
MOST_PUSD = 9_000_000 * 10**12


class Level(Protocol):
    """How one budget stands, as the policy tells it."""

    scope: str
    subject: str
    span: str
    period: str
    ends_wall_ns: int
    limit_pusd: int
    left_pusd: int
    hard: bool


class BudgetDesk:
    """Verbs over budgets. `save` puts a change on the disk; only then it holds. `policies` are those in force."""

    def __init__(
        self,
        adjustments: Adjustments,
        save: Callable[[Adjustment], Awaitable[None]],
        policies: Callable[[], Iterable[Policy]],
        directory: Directory,
        events: Events,
        clock: Clock,
        time_zone: str,
    ) -> None:
        self._adjustments = adjustments
        self._save = save
        self._policies = policies
        self._directory = directory
        self._events = events
        self._clock = clock
        self._zone = zone_of(time_zone)
        self._ids = Ids()

    def verbs(self) -> dict[str, Verb]:
        """By name, for the admin socket; each takes and gives what JSON can hold, money as decimal strings."""
        return {
            "budget_show": self.show,
            "budget_top_up": self.top_up,
            "budget_override": self.override,
            "budget_restore": self.restore,
            "budget_history": self.history,
        }

    async def show(self, scope: str = "", subject: str = "") -> list[dict[str, Any]]:
        """How budgets stand now. Raises ValueError where no budget policy is in force, and for nobody's budget."""
        if scope and subject:
            self._check(scope, subject)
        for policy in self._policies():
            if policy.name == "budget":
                levels: Sequence[Level] = await cast("Any", policy).status(scope, subject)
                return [_level(level) for level in levels]
        raise ValueError("the policy 'budget' is not in the list of policies, so no budget is in force")

    async def top_up(
        self, scope: str, subject: str, span: str, usd: str, reason: str, actor: str = "", period: str = ""
    ) -> dict[str, Any]:
        """So much more, for one period only (the current one where none is given)."""
        amount = pusd_of(usd)
        if amount == 0:
            raise ValueError("a top-up of nothing changes nothing")
        current = period_at(_span(span), self._clock.wall_ns(), self._zone).name
        if period:
            _check_period(_span(span), period, current)
        return await self._change("top_up", scope, subject, span, reason, actor, amount, period or current)

    async def override(
        self,
        scope: str,
        subject: str,
        span: str,
        usd: str | None,
        reason: str,
        actor: str = "",
        until_wall_ns: int | None = None,
    ) -> dict[str, Any]:
        """Another figure instead of the configured one (None: no bound), until a time or the next override."""
        if until_wall_ns is not None and until_wall_ns <= self._clock.wall_ns():
            raise ValueError("an override can't end in the past")
        amount = None if usd is None else pusd_of(usd)
        return await self._change("override", scope, subject, span, reason, actor, amount, "", until_wall_ns)

    async def restore(self, scope: str, subject: str, span: str, reason: str, actor: str = "") -> dict[str, Any]:
        """Back to the configured figure; top-ups stay."""
        return await self._change("restore", scope, subject, span, reason, actor)

    async def history(self, scope: str = "", subject: str = "") -> list[dict[str, Any]]:
        """Every change, oldest first."""
        return [
            _shown(one) for one in self._adjustments.all() if scope in ("", one.scope) and subject in ("", one.subject)
        ]

    async def _change(
        self,
        action: str,
        scope: str,
        subject: str,
        span: str,
        reason: str,
        actor: str,
        amount: int | None = None,
        period: str = "",
        until_wall_ns: int | None = None,
    ) -> dict[str, Any]:
        if not reason.strip():
            raise ValueError("say why: a change of a budget needs a reason")
        if amount is not None and amount > MOST_PUSD:
            raise ValueError(f"{usd_text(amount)} USD is more than a budget can be changed by")
        self._check(scope, subject)
        wall_ns = self._clock.wall_ns()
        one = Adjustment(
            id=self._ids.new(wall_ns),
            at_wall_ns=wall_ns,
            scope=cast("Scope", scope),
            subject=subject,
            span=_span(span),
            action=cast("Any", action),
            reason=reason.strip(),
            actor=actor,
            amount_pusd=amount,
            period=period,
            until_wall_ns=until_wall_ns,
        )
        await self._save(one)
        self._adjustments.add(one)
        self._events.emit("budget_changed", **_shown(one))
        return _shown(one)

    def _check(self, scope: str, subject: str) -> None:
        """Raises ValueError unless there is such an org, client or key."""
        directory = self._directory
        known = {
            "org": lambda: any(client.org == subject for client in directory.clients()),
            "client": lambda: directory.client(subject) is not None,
            "key": lambda: directory.key(subject) is not None,
        }
        if scope not in known:
            raise ValueError(f"budgets are of an {', '.join(known)}; not of {scope!r}")
        if not known[scope]():
            raise ValueError(f"there is no {scope} {subject!r}")


def _span(span: str) -> Span:
    if span not in get_args(Span):
        raise ValueError(f"a budget is for a {' or a '.join(get_args(Span))}, not for {span!r}")
    return cast("Span", span)


def _check_period(span: Span, period: str, current: str) -> None:
    """Raises ValueError unless a top-up can still be for that one."""
    if not is_period(span, period):
        hint = "; for one day: --span day" if span == "month" and is_period("day", period) else ""
        raise ValueError(f"{period!r} is not a {span} such as {current}{hint}")
    if period < current:
        raise ValueError(f"{period} is over: now it is {current}")


def _level(level: Level) -> dict[str, Any]:
    return {
        "scope": level.scope,
        "subject": level.subject,
        "span": level.span,
        "period": level.period,
        "ends_wall_ns": level.ends_wall_ns,
        "limit_usd": _usd(level.limit_pusd),
        "used_usd": _usd(level.limit_pusd - level.left_pusd),
        "left_usd": _usd(level.left_pusd),
        "hard": level.hard,
    }


def _shown(one: Adjustment) -> dict[str, Any]:
    return {
        "id": one.id,
        "at_wall_ns": one.at_wall_ns,
        "scope": one.scope,
        "subject": one.subject,
        "span": one.span,
        "action": one.action,
        "amount_usd": None if one.amount_pusd is None else _usd(one.amount_pusd),
        "period": one.period,
        "until_wall_ns": one.until_wall_ns,
        "reason": one.reason,
        "actor": one.actor,
    }


def _usd(pusd: int) -> str:
    return usd_text(pusd).replace(",", "")
