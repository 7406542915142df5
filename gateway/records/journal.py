"""The intent journal: framed records in a preallocated, memory-mapped ring of segments. An append is one copy."""

from __future__ import annotations

from gateway.errors import Overloaded


class LedgerFull(Overloaded):
    """No room to record another attempt: the writer is stuck (disk full, database locked). Fails closed, 503."""

    code = "ledger_full"
    fault = "gateway"
