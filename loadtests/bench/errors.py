"""What can end a run before it has figures."""

from __future__ import annotations


class BenchError(Exception):
    """The machine, a tool or a system is not fit for the run; the message says what would be."""
