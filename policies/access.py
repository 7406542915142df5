"""What a caller may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gateway.call import Call
from gateway.errors import Forbidden
from gateway.policy import Policy
from gateway.scopes import may_use


@dataclass
class Access(Policy):
    """Roles, then the scopes of client and key: routes, workers, models. Targets out of scope are dropped."""

    after: ClassVar[tuple[str, ...]] = ("identity",)

    def apply(self, call: Call) -> None:
        client, key = call.client, call.key
        if key.role == "viewer":
            raise Forbidden("A viewer's key reads the control API only; calls need a key with role client or service.")
        if client.scope.unbounded and key.scope.unbounded:
            return
        route = call.route.name
        if not may_use(client, key, "routes", route):
            raise Forbidden(f"This key may not use the route '{route}'.", code="route_not_allowed")
        if call.worker and not may_use(client, key, "workers", call.worker):
            raise Forbidden(f"This key may not use the worker '{call.worker}'.", code="worker_not_allowed")
        if _names_a_file(call) and not may_use(client, key, "models", ""):
            raise Forbidden(
                "This key may use some models only, and those in the file of a batch are not read. "
                "Send its requests one by one, or with a key for all models.",
                code="model_not_allowed",
                param="input_file_id",
            )
        asked = call.facts.model
        if asked is not None and not may_use(client, key, "models", asked):
            allowed = [t for t in call.targets if may_use(client, key, "models", t.model)]
            if not allowed:
                raise _refused(asked)  # its targets stay: they say in the ledger which model it was
            call.targets = allowed
        for also in call.facts.more_models:
            if not may_use(client, key, "models", also):
                raise _refused(also)


def _names_a_file(call: Call) -> bool:
    """A batch whose requests stand in a file, with models that nobody has checked."""
    return call.route.name == "batches" and isinstance(call.json, dict) and "input_file_id" in call.json


def _refused(model: str) -> Forbidden:
    return Forbidden(
        f"This key may not use the model '{model[:200]}'. GET /v1/models lists what it may use.",
        code="model_not_allowed",
        param="model",
    )
