"""Where a call can be served: a provider, the name of the model there, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.abilities import Abilities
from gateway.usage import Estimate

if TYPE_CHECKING:
    from gateway.call import Facts
    from gateway.pools import PoolUse
    from gateway.prices import Quote
    from gateway.providers.base import Provider


@dataclass(frozen=True, slots=True)
class Target:
    """One entry of a model's ordered list, resolved: `model` is the public name that access and limits follow."""

    provider: Provider
    model: str
    upstream_model: str
    quote: Quote
    default_output_tokens: int = 1024
    unbounded_tokens: int = 32_768  # reserved for work without a bound
    enforce_output_cap: bool = False
    weight: int = 0  # consecutive targets that have one share the load; 0: tried in its place
    pools: PoolUse | None = None  # what a call takes of which pools
    abilities: Abilities = field(default_factory=Abilities)  # as the configuration states them

    def estimate(self, facts: Facts) -> Estimate:
        """TERMS 4: input at one token a byte, output at n x max_tokens, unbounded work by its configured figure."""
        per_choice = self.default_output_tokens if facts.max_tokens is None else facts.max_tokens
        output = facts.n * per_choice
        if facts.unbounded:
            output = max(output, self.unbounded_tokens)
        tokens_in = facts.prompt_bytes if facts.input_tokens is None else facts.input_tokens
        cost = self.quote.worst(tokens_in, output, facts.units)
        return Estimate(tokens_in, output, facts.prompt_bytes // 4 + output, cost)
