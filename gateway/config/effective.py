"""What a configuration comes to in its environment: providers by their keys, or the fake one where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from gateway.config.endpoints import BASE_URLS, ModelSettings, ProviderSettings, WorkerSettings
from gateway.config.settings import Settings

#: Environment variables that make a provider live with no configuration.
KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
DEMO_MODELS = ("demo-small", "demo-large")
DEMO_PROVIDERS = {"demo": "openai", "demo-anthropic": "anthropic"}
#: Stands in the demo providers until `at_demo` gives them the address of the running one.
NO_ADDRESS = "http://demo.invalid"


def effective(settings: Settings, env: Mapping[str, str]) -> Settings:
    """The settings with everything that is implied.

    Where no provider is configured, those whose key is in the environment are live, and where none is, the fake one
    inside (`demo` is True; `at_demo` fills its address in). Where no model is configured, the first provider of kind
    openai serves every name, and the first of kind anthropic every "claude-*" (every name, where it is alone).
    Providers of kind http become workers.
    """
    providers = dict(settings.providers)
    workers = dict(settings.workers)
    for name, provider in settings.providers.items():
        if provider.kind == "http":
            workers.setdefault(name, _worker(provider))
            del providers[name]
    if not settings.providers:
        providers = {
            name: _implied(name, env[variable]) for name, variable in KEY_VARIABLES.items() if env.get(variable)
        }
    demo = not providers and not workers
    models = dict(settings.models)
    if demo:
        providers = {name: _fake(name) for name in DEMO_PROVIDERS}
        workers = {"demo": WorkerSettings.model_validate({"base_url": NO_ADDRESS + "/worker"})}
        for model in DEMO_MODELS:
            models.setdefault(model, _model(*(f"{name}/{model}" for name in providers)))
    elif not models:
        models = _wildcards(providers)
    result = settings.model_copy(update={"providers": providers, "workers": workers, "models": models})
    result._demo = demo
    return result


def at_demo(settings: Settings, origin: str) -> Settings:
    """A copy whose demo providers are at `origin` ("http://127.0.0.1:40123"), where the fake provider listens."""
    providers = dict(settings.providers)
    for name, provider in settings.providers.items():
        if provider.demo:
            moved = provider.model_copy(update={"base_url": provider.base_url.replace(NO_ADDRESS, origin.rstrip("/"))})
            moved._demo = True
            providers[name] = moved
    workers = {
        name: worker.model_copy(update={"base_url": worker.base_url.replace(NO_ADDRESS, origin.rstrip("/"))})
        for name, worker in settings.workers.items()
    }
    result = settings.model_copy(update={"providers": providers, "workers": workers})
    result._demo = settings.demo
    return result


def _implied(name: str, key: str) -> ProviderSettings:
    return ProviderSettings.model_validate({"kind": name, "base_url": BASE_URLS[name], "api_key": SecretStr(key)})


def _fake(name: str) -> ProviderSettings:
    kind = DEMO_PROVIDERS[name]
    base_url = NO_ADDRESS + ("/v1" if kind == "openai" else "")
    provider = ProviderSettings.model_validate(
        {"kind": kind, "base_url": base_url, "attempt_header": "x-tidegate-attempt"}
    )
    provider._demo = True
    return provider


def _worker(provider: ProviderSettings) -> WorkerSettings:
    shared: dict[str, Any] = {
        name: getattr(provider, name) for name in WorkerSettings.model_fields if name in ProviderSettings.model_fields
    }
    return WorkerSettings.model_construct(**shared, timeout_s=provider.timeouts.total_s)


def _model(*targets: str) -> ModelSettings:
    return ModelSettings.model_validate({"targets": list(targets)})


def _wildcards(providers: Mapping[str, ProviderSettings]) -> dict[str, ModelSettings]:
    first: dict[str, str] = {}
    for name, provider in providers.items():
        first.setdefault(provider.kind, name)
    every = first.get("openai", first.get("anthropic"))
    models = {} if every is None else {"*": _model(f"{every}/*")}
    if "openai" in first and "anthropic" in first:
        models["claude-*"] = _model(f"{first['anthropic']}/*")
    return models
