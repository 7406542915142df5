"""A million operations on one budget: splits, refunds, debts and price changes in flight lose and mint nothing."""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.state.memory import MemoryStore
from gateway.state.store import Tally

OPERATIONS = 1_000_000
PRICES = (150_000, 600_000, 2_500_000, 10_000_000, 333_333)  # pico-dollars a token
BUDGET = 2 * 10**15  # not enough for all


def now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


@pytest.mark.slow
def test_a_million_operations_conserve_every_pico_dollar() -> None:
    """What is left plus what is held plus what was spent is the budget, to the pico-dollar, all the time."""
    random = Random(20261124)
    below, chance, pick = random.randrange, random.random, random.choice
    store = MemoryStore(ManualClock())
    org = Tally("org", BUDGET, "", "2026-11")
    clients = [Tally(f"client {n}", BUDGET // 4, "", "2026-11") for n in range(4)]
    held: list[tuple[str, int, list[int]]] = []  # id, client, amounts: one for each attempt that was reserved
    spent, holding = [0, 0, 0, 0], [0, 0, 0, 0]
    price = PRICES[0]
    for step in range(OPERATIONS):
        if step % 97 == 0:
            price = pick(PRICES)  # while calls are in flight
        dice = chance()
        if not held or (dice < 0.48 and len(held) < 400):
            client, amount = below(4), (1 + below(4000)) * price
            if now(store.reserve(str(step), [(org, amount), (clients[client], amount)], 900.0)).granted:
                held.append((str(step), client, [amount]))
                holding[client] += amount
            continue
        place = below(len(held))
        hold, client, amounts = held[place]
        if dice < 0.55:  # failover: the first attempt may have been billed, another is reserved besides
            amount = below(4000) * price
            if now(store.reserve(hold, [(org, amount), (clients[client], amount)], 900.0)).granted:
                amounts.append(amount)
                holding[client] += amount
            continue
        held[place] = held[-1]
        held.pop()
        holding[client] -= sum(amounts)
        if dice < 0.62:
            now(store.release(hold))
            continue
        actual = [below(4100) * price if chance() < 0.1 else int(amount * 7 // 10) for amount in amounts]
        now(store.settle(hold, [share for amount in actual for share in (amount, amount)]))
        spent[client] += sum(actual)
        if step % 1000 == 0:
            for n, level in enumerate(now(store.levels(clients))):
                assert level.remaining + holding[n] + spent[n] == BUDGET // 4
    for hold, _client, _amounts in held:
        now(store.release(hold))
    assert [level.remaining for level in now(store.levels(clients))] == [BUDGET // 4 - one for one in spent]
    assert now(store.levels([org]))[0].remaining == BUDGET - sum(spent)
    assert sum(spent) > 0
