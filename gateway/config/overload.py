"""[overload]: when the gateway turns calls away for its own sake, and what slow readers may cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.values import Count, Percent, Section, Size

if TYPE_CHECKING:
    from gateway.overload import OverloadRules


class OverloadSettings(Section):
    """Marks; 0 switches each of them off. Sizes in bytes."""

    lag_ms: Count = 50
    memory_percent: Percent = 85
    min_read_rate: Count = 240
    unsent_limit: Size = 256 * 1024 * 1024

    def rules(self) -> OverloadRules:
        """As the measurement takes them."""
        from gateway.overload import OverloadRules

        return OverloadRules(self.lag_ms / 1000, self.memory_percent)
