"""Holds end by themselves; those of calls that still live are renewed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from gateway.state.store import Store

#: A hold that nobody renewed for this long ends.
HOLD_TTL_S = 900.0
#: Time between two rounds; two may fail before a hold would end.
ROUND_S = HOLD_TTL_S / 3
#: Holds renewed between two glances at other work.
SHARE = 200


async def renew(store: Store, holding: Collection[str], every_s: float = ROUND_S) -> None:
    """Renews for ever what the calls in `holding` hold; cancelled at the end of the process."""
    while True:
        await asyncio.sleep(every_s)
        for count, hold in enumerate(list(holding)):
            if hold in holding:
                await store.renew(hold, HOLD_TTL_S)
            if count % SHARE == 0:
                await asyncio.sleep(0)
