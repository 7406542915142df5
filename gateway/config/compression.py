"""[compression]: which bodies are made shorter on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from gateway.config.values import Codings, Section, Size

if TYPE_CHECKING:
    from gateway.compression import CompressionRules


class CompressionSettings(Section):
    """What clients are offered, and from when on it is worth it; for requests to workers as well."""

    answers: Codings = ("zstd", "gzip")
    min_bytes: Size = 10_240
    min_saving_percent: Annotated[int, Field(ge=0, le=99)] = 20
    streams: bool = False

    def rules(self) -> CompressionRules:
        """As the gateway takes them."""
        from gateway.compression import CompressionRules

        return CompressionRules(self.answers, self.min_bytes, self.min_saving_percent, self.streams)
