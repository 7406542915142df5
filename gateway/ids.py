"""Ids: UUIDv7, so that they sort by time (RFC 9562)."""

from __future__ import annotations

from random import Random, SystemRandom


class Ids:
    """Makes UUIDv7 strings. Random bits come from a generator seeded by the system: ids are unique, not secret."""

    def __init__(self, random: Random | None = None) -> None:
        self._bits = (random or Random(SystemRandom().getrandbits(256))).getrandbits

    def new(self, wall_ns: int) -> str:
        """An id that carries this time in milliseconds."""
        ms = wall_ns // 1_000_000 & 0xFFFFFFFFFFFF
        bits = self._bits(74)
        value = (
            f"{(ms << 80) | 0x7000_8000_0000_0000_0000 | ((bits >> 62) << 64) | (bits & 0x3FFF_FFFF_FFFF_FFFF):032x}"
        )
        return f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}"
