"""Where a call could be served, before any policy narrows it: by model, worker, stored object, or route."""

from __future__ import annotations

from gateway.call import Call
from gateway.catalog import DEFAULT_MODELS, Catalog, Providers
from gateway.errors import BadRequest, ModelNotFound
from gateway.prices import Prices
from gateway.providers.base import Kind, Provider
from gateway.routes import Match
from gateway.targets import Target

#: Which provider kind serves routes of a dialect.
KIND_OF = {"openai": "openai", "anthropic": "anthropic", "plain": "http"}


class Resolver:
    """Turns what a call names into targets."""

    def __init__(self, catalog: Catalog, providers: Providers, kinds: dict[str, Kind], prices: Prices) -> None:
        self.catalog = catalog
        self.providers = providers
        self._kinds = kinds
        self._prices = prices
        self._plain: dict[tuple[str, str], Target] = {}

    def kind(self, dialect: str) -> Kind:
        """How requests of this dialect are read."""
        return self._kinds[KIND_OF[dialect]]

    def targets(self, call: Call, match: Match, holder: str) -> list[Target]:
        """In the order they are tried. `holder` names the provider of an object that the call refers to."""
        if match.route.name == "worker":
            call.worker = match.id
            return [self._plain_target(self.providers.worker(match.id), match.id)]
        kind = KIND_OF[call.dialect]
        if not match.route.model:
            wanted = call.header(b"x-tidegate-provider")
            name = holder or (wanted.decode("latin-1") if wanted else "")
            if not call.facts.is_routed:
                return [self._plain_target(self.providers.default(kind, name), "")]
            holder = self.providers.default(kind, name).name if name else ""
        targets = self._by_model(call, match, kind)
        if not holder:
            return targets
        holding = [target for target in targets if target.provider.name == holder]
        if not holding:
            raise BadRequest(
                f"This call names provider '{holder}', or an object stored there, which does not serve "
                f"model '{call.facts.model}'.",
                param="model",
            )
        return holding

    def named(self, model: str, dialect: str) -> list[Target]:
        """Those of a public name on routes of a dialect. Raises ModelNotFound."""
        return self.catalog.resolve(model, KIND_OF[dialect])

    def renewed(self, targets: list[Target]) -> list[Target]:
        """The same targets as this configuration has them. Raises ModelNotFound if none is left."""
        found = []
        for target in targets:
            known = self._same(target)
            if known is not None:
                found.append(known)
        if targets and not found:
            raise ModelNotFound("What this call was waiting for is no longer configured here.", param="model")
        return found

    def _same(self, target: Target) -> Target | None:
        kind, name = target.provider.kind.name, target.provider.name
        if kind == "http" or not target.model:  # a worker, or a path without a model
            among = self.providers.workers if kind == "http" else self.providers.providers
            return self._plain_target(among[name], target.model) if name in among else None
        try:
            known = self.catalog.resolve(target.model, kind)
        except ModelNotFound:
            return None
        same = (one for one in known if (one.provider.name, one.upstream_model) == (name, target.upstream_model))
        return next(same, None)

    def _by_model(self, call: Call, match: Match, kind: str) -> list[Target]:
        model = call.facts.model
        if model is not None:
            return self.catalog.resolve(model, kind)
        assumed = DEFAULT_MODELS.get(match.route.name)
        if assumed is None and call.body is not None:
            raise BadRequest("The request names no model. Set the field 'model'.", param="model")
        call.facts.model = assumed or "default"
        try:
            return self.catalog.resolve(call.facts.model, kind)
        except ModelNotFound:
            return [self._plain_target(self.providers.default(kind), call.facts.model)]

    def _plain_target(self, provider: Provider, name: str) -> Target:
        """A target that no model of the configuration stands behind."""
        key = (provider.name, name)
        found = self._plain.get(key)
        if found is None:
            quote = self._prices.quote(provider.kind.name, provider.name, name, name)
            found = self._plain[key] = Target(provider, name, name, quote, pools=provider.pools)
        return found
