"""Which attempt of a call comes next: where, with which credential, after which pause; or that none does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.providers.faults import Fault, may_repeat
from gateway.routing.keyring import REFUSED_S, Credential
from gateway.routing.patience import backoff, retry_after
from gateway.routing.standing import Standing
from gateway.upstream.base import Headers

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.routing.routing import Routing
    from gateway.routing.rules import RetryRules
    from gateway.targets import Target

#: For how long an answer may put a target aside.
LONGEST_ASIDE_S = 3600.0


@dataclass(slots=True, eq=False)
class Choice:
    """One attempt to make: after `pause_s`, if the limits can be moved there."""

    target: Target
    standing: Standing
    credential: Credential | None = None
    pause_s: float = 0.0
    is_moved: bool = False  # another target than the one whose needs are held, or held ones stay as they are besides
    proves: bool = False  # half-open: no other call goes there until this one has ended
    why: str = ""  # of a further attempt: retry, failover, hedge
    is_paid: bool = False  # one repeated exchange of the provider's budget was taken for it
    began_ns: int = 0


@dataclass(slots=True, eq=False)
class Failed:
    """What an attempt came to, and what its provider said about coming again."""

    choice: Choice
    fault: Fault
    wait_s: float | None = None
    should_retry: bool | None = None


class Attempts:
    """The attempts of one call, as many as its first target's provider allows. `once`: its body can't be sent again."""

    __slots__ = ("_call", "_failed", "_home", "_made", "_once", "_refused", "_repeats", "_routing")

    def __init__(self, routing: Routing, call: Call, once: bool) -> None:
        self._routing = routing
        self._call = call
        self._once = once
        self._made = 0
        self._repeats = 0
        self._failed: list[Failed] | tuple[()] = ()  # a call that is served at once needs no list
        self._refused: list[Target] | tuple[()] = ()  # where the limits could not be moved to
        self._home = routing.standings.of(call.targets[0])
        self._home.place.repeats.called()

    def first(self) -> Choice:
        """The first target that is not out; its needs are held already where that is the first of all."""
        routing, targets, standing = self._routing, self._call.targets, self._home
        if len(targets) > 1 and not self._once:
            now_ns = routing.now_ns()
            other = self._elsewhere(now_ns, None) if standing.is_out(now_ns) else None
            if other is not None:
                return other
        if routing.has_keyrings or standing.is_troubled:
            return self._chosen(targets[0], standing, routing.now_ns())
        return Choice(targets[0], standing)

    def begin(self, choice: Choice) -> None:
        """The attempt is made now. `end` follows, however it goes."""
        self._made += 1
        if choice.why:
            self._routing.count_repeat(choice.target, choice.why)
        choice.began_ns = self._routing.now_ns()
        choice.standing.outstanding += 1
        if choice.credential is not None:
            choice.credential.outstanding += 1

    def end(self, choice: Choice) -> None:
        """The attempt is over, its reply read or given up."""
        choice.standing.outstanding -= 1
        if choice.credential is not None:
            choice.credential.outstanding -= 1
        if choice.proves:
            self._release(choice)

    def skip(self, choice: Choice) -> None:
        """The limits could not be moved to this one; nothing was sent."""
        if choice.why != "hedge":  # which needs room besides; another attempt may find it instead of this one
            self._refused = [*self._refused, choice.target]
        if choice.is_paid:
            choice.standing.place.repeats.give_back()
        if choice.proves:
            self._release(choice)

    def succeeded(self, choice: Choice, headers: Headers) -> None:
        """The reply's head is there and shows nothing wrong."""
        routing = self._routing
        now_ns = routing.now_ns()
        choice.standing.succeeded(choice.began_ns, now_ns)
        if choice.proves:
            self._release(choice)  # what follows may take long
        if routing.rules.hedge.enabled:
            choice.standing.sample(self._call.route.name, now_ns - choice.began_ns)
        if choice.credential is not None:
            choice.credential.learn(headers, choice.target.upstream_model, now_ns, routing.wall_ns())

    def outrun(self, choice: Choice) -> None:
        """Another attempt was faster: this one takes at least as long as it has taken."""
        choice.standing.waited(self._routing.now_ns() - choice.began_ns)

    def failed(self, choice: Choice, fault: Fault, headers: Headers | None = None) -> Failed:
        """Counts the failure; what `next` goes by. `headers`: of the answer, if there was one."""
        routing, standing = self._routing, choice.standing
        now_ns = routing.now_ns()
        failed = Failed(choice, fault)
        if fault.breaker == "provider":
            standing.place.breaker.failed(choice.began_ns, now_ns)
        elif fault.breaker == "target":
            standing.breaker.failed(choice.began_ns, now_ns)
        if headers is not None:
            standing.answered(choice.began_ns, now_ns)
            failed.wait_s = retry_after(headers, routing.wall_ns() / 1e9)
            failed.should_retry = _should_retry(headers)
            self._set_aside(failed, headers, now_ns)
        if fault.other == "budget":
            standing.overloaded(now_ns)
        routing.count_failure(choice.target, fault)
        self._failed = [*self._failed, failed]
        return failed

    def next(self, failed: Failed) -> Choice | None:
        """What to try after that: another credential, another target, or after a pause one of those that failed."""
        if self._once or self._made >= self._home.place.retry.attempts or not may_repeat(self._call, failed.fault):
            return None
        now_ns = self._routing.now_ns()
        if self._call.deadline_ns is not None and now_ns >= self._call.deadline_ns:
            return None
        choice = self._with_another_key(failed, now_ns) or self._elsewhere(now_ns, failed) or self._again(now_ns)
        if choice is not None:
            choice.why = "retry" if choice.standing is failed.choice.standing else "failover"
        return choice

    def hedge(self, first: Choice) -> tuple[int, Choice] | None:
        """After how many nanoseconds a second attempt goes out beside the first, and where to; None for never."""
        routing, call = self._routing, self._call
        rules = routing.rules.hedge
        is_short = call.route.name in rules.routes or call.method == "GET" or b"idempotency-key" in call.headers
        if not is_short or call.facts.stream or self._once or self._made >= self._home.place.retry.attempts:
            return None
        usual_ns = first.standing.percentile(call.route.name, rules.percentile, rules.min_samples)
        if usual_ns is None:
            return None
        now_ns = routing.now_ns()
        others = [target for target in call.targets if target is not first.target and _fits(call, target)]
        others = [target for target in others if not self._is_out(target, now_ns)]
        well = [target for target in [*others, first.target] if not routing.standings.of(target).is_troubled]
        if not well:
            return None  # a half-open target is proved by a call that is sorely needed there
        target, standing = well[0], routing.standings.of(well[0])
        choice = self._chosen(target, standing, now_ns)
        choice.is_moved, choice.why = True, "hedge"
        return max(usual_ns, rules.min_delay_ms * 1_000_000), choice

    def _with_another_key(self, failed: Failed, now_ns: int) -> Choice | None:
        """The same target, where it was the credential that was refused or used up."""
        choice = failed.choice
        if failed.fault.name not in ("429", "quota", "401", "403") or choice.credential is None:
            return None
        if choice.target in self._refused:
            return None
        tried = [
            one.choice.credential
            for one in self._failed
            if one.choice.target is choice.target and one.choice.credential is not None
        ]
        keyring = self._routing.keyring(choice.target.provider)
        found = None if keyring is None else keyring.choose(choice.target.upstream_model, now_ns, tried)
        if found is None:
            return None
        return Choice(choice.target, choice.standing, found)

    def _elsewhere(self, now_ns: int, failed: Failed | None) -> Choice | None:
        """Another target, at once."""
        if failed is not None and failed.fault.other == "no":
            return None
        for target in self._call.targets:
            if self._is_used(target) or self._is_out(target, now_ns) or not _fits(self._call, target):
                continue
            standing = self._routing.standings.of(target)
            is_paid = failed is not None and failed.fault.other == "budget" and standing.is_strained(now_ns)
            if is_paid and not standing.place.repeats.take():
                continue
            choice = self._chosen(target, standing, now_ns)
            choice.is_paid = is_paid
            choice.is_moved = failed is not None or target is not self._call.targets[0]
            return choice
        return None

    def _again(self, now_ns: int) -> Choice | None:
        """One that failed, after a pause: the one that may be asked soonest, of those whose budget allows it."""
        latest = {(id(one.choice.target), id(one.choice.credential)): one for one in self._failed}
        for failed in sorted(latest.values(), key=lambda one: one.wait_s or 0.0):
            standing, retry = failed.choice.standing, failed.choice.standing.place.retry
            if failed.fault.same == "no" or failed.should_retry is False or failed.choice.target in self._refused:
                continue
            if standing.breaker.state == "open" or standing.place.breaker.state == "open":
                continue  # also where it is the only one: a storm is not fed
            if (failed.wait_s or 0.0) > retry.longest_retry_after_s:
                continue
            pause_s = self._pause_s(failed, retry)
            if self._call.deadline_ns is not None and now_ns + pause_s * 1e9 >= self._call.deadline_ns:
                continue
            if not standing.place.repeats.take():
                continue
            self._repeats += 1
            choice = self._chosen(failed.choice.target, standing, now_ns)
            choice.pause_s, choice.is_paid = pause_s, True
            return choice
        return None

    def _pause_s(self, failed: Failed, retry: RetryRules) -> float:
        """As its provider asks, but no less than the back-off."""
        draw = self._routing.draw
        pause_s = backoff(self._repeats, retry.backoff_s, retry.longest_backoff_s, draw)
        return pause_s if failed.wait_s is None else max(pause_s, failed.wait_s * (1.0 + draw() / 10))

    def _chosen(self, target: Target, standing: Standing, now_ns: int) -> Choice:
        keyring = self._routing.keyring(target.provider)
        credential = None if keyring is None else keyring.choose(target.upstream_model, now_ns, [])
        choice = Choice(target, standing, credential)
        if standing.is_troubled:
            self._hold(choice)
        return choice

    def _hold(self, choice: Choice) -> None:
        """Half-open: this call is the probe."""
        for breaker in (choice.standing.breaker, choice.standing.place.breaker):
            if breaker.state == "half_open" and breaker.prober is None:
                breaker.prober, choice.proves = choice, True

    def _release(self, choice: Choice) -> None:
        choice.proves = False
        for breaker in (choice.standing.breaker, choice.standing.place.breaker):
            if breaker.prober is choice:
                breaker.prober = None

    def _is_used(self, target: Target) -> bool:
        return target in self._refused or any(failed.choice.target is target for failed in self._failed)

    def _is_out(self, target: Target, now_ns: int) -> bool:
        standing = self._routing.standings.of(target)
        return standing.is_out(now_ns) and target in self._routing.out(self._call.targets, now_ns)

    def _set_aside(self, failed: Failed, headers: Headers, now_ns: int) -> None:
        """What a provider asks for holds for the next calls too, where they have another way."""
        choice, name = failed.choice, failed.fault.name
        model = choice.target.upstream_model
        wait_s = min(failed.wait_s or 0.0, LONGEST_ASIDE_S)
        if choice.credential is not None:
            choice.credential.learn(headers, model, now_ns, self._routing.wall_ns())
            if name in ("401", "403", "quota"):
                choice.credential.put_aside("" if name == "401" else model, now_ns + round(REFUSED_S * 1e9))
            elif wait_s and name == "429":
                choice.credential.put_aside(model, now_ns + round(wait_s * 1e9))
            return
        if name == "quota":
            wait_s = max(wait_s, REFUSED_S)
        if wait_s and (name == "quota" or failed.fault.other == "budget"):
            until_ns = now_ns + round(wait_s * 1e9)
            choice.standing.aside_until_ns = max(choice.standing.aside_until_ns, until_ns)


def _fits(call: Call, target: Target) -> bool:
    """Whether that provider takes a body of this size."""
    most = target.provider.body_limit
    return not most or call.body is None or len(call.body) <= most


def _should_retry(headers: Headers) -> bool | None:
    for name, value in headers:
        if name == b"x-should-retry":
            return {b"true": True, b"false": False}.get(value.lower())
    return None
