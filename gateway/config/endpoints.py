"""[providers], [models], [workers] and [prices]: what can be reached, under which names, at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, WithJsonSchema, model_validator

from gateway.config.resilience import OwnBreakerSettings, OwnRetrySettings
from gateway.config.values import (
    Amounts,
    BaseUrl,
    Codings,
    FilePath,
    HeaderName,
    Headers,
    HealthPath,
    Keys,
    Names,
    PassedHeaders,
    Positive,
    Price,
    PublicNames,
    Seconds,
    Section,
    Size,
    SomeSeconds,
    wrong,
)

if TYPE_CHECKING:
    from gateway.abilities import Abilities
    from gateway.prices import PriceOverride
    from gateway.upstream.base import Timeouts

ProviderKind = Literal["openai", "anthropic", "http"]

#: Where a kind's own provider is, when no base_url is given.
BASE_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}


class TimeoutSettings(Section):
    """Seconds; 0 means no bound."""

    connect_s: Seconds = 5.0
    first_byte_s: Seconds = 120.0
    idle_s: Seconds = 60.0
    total_s: Seconds = 600.0

    def upstream(self) -> Timeouts:
        """As the upstream clients take them."""
        from gateway.upstream.base import Timeouts

        return Timeouts(self.connect_s, self.first_byte_s, self.idle_s, self.total_s)


class EndpointSettings(Section):
    """What providers and workers have in common. `api_key` holds the key wherever it came from, file included."""

    base_url: BaseUrl = ""
    api_key: SecretStr | None = None
    api_key_file: FilePath | None = None
    api_keys: Keys = ()
    health_path: HealthPath = ""
    auth_header: HeaderName | None = None
    headers: Headers = Field(default_factory=dict)
    query: dict[str, SecretStr] = Field(default_factory=dict)
    pass_headers: PassedHeaders = ()
    attempt_header: HeaderName | None = None
    max_concurrent: Positive = 100
    max_connections: Positive | None = None
    client: Literal["native", "httpx"] = "native"
    trust_env: bool = False
    verify: bool = True
    ca_file: FilePath | None = None
    accepts: Codings = ()
    body_limit: Size | None = None
    retry: OwnRetrySettings | None = None
    breaker: OwnBreakerSettings | None = None

    @property
    def key(self) -> str:
        """The credential in clear, "" where there is none."""
        return "" if self.api_key is None else self.api_key.get_secret_value()

    @property
    def every_key(self) -> list[str]:
        """All credentials in clear, `api_key` first; one "" where there is none."""
        keys = [self.key] if self.key else []
        return [*keys, *(key.get_secret_value() for key in self.api_keys)] or [""]

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("base_url", ""), str):
            return data
        url = data.get("base_url", "")
        if not url:
            url = BASE_URLS.get(str(data.get("kind")), "")
        elif data.get("kind") == "anthropic":
            # Some of its SDKs want a base URL with /v1; ours is without, as its own documentation has it.
            url = url.rstrip("/")
            while url.endswith("/v1"):
                url = url.removesuffix("/v1")
        return {**data, "base_url": url}

    @model_validator(mode="after")
    def _agree(self) -> EndpointSettings:
        if self.trust_env and self.client != "httpx":
            raise wrong('client = "httpx" beside trust_env = true: the native client takes no proxy', "trust_env")
        if self.api_key is not None and self.api_key_file is not None:
            raise wrong("api_key or api_key_file, not both", "api_key_file")
        if not all(key.isascii() and key.isprintable() for key in self.every_key):
            raise wrong("a key that a header can carry: printable ASCII without line breaks", "api_key")
        if not self.base_url:
            raise wrong('a base URL: base_url = "http://127.0.0.1:9001"', "base_url")
        return self


class ProviderSettings(EndpointSettings):
    """A provider. Kind "http" is a worker under another heading."""

    kind: ProviderKind
    timeouts: TimeoutSettings = TimeoutSettings()

    _demo: bool = PrivateAttr(default=False)

    @property
    def demo(self) -> bool:
        """The fake provider inside, made by `effective`; never by a file."""
        return self._demo


class WorkerSettings(EndpointSettings):
    """A downstream HTTP worker, at /workers/NAME/... ; `timeout_s` bounds the whole exchange."""

    actions: Names = ()
    timeout_s: SomeSeconds = 30.0
    max_concurrent: Positive = 10
    pools: Amounts = Field(default_factory=dict)
    stated_pools: Names = ()

    @property
    def timeouts(self) -> TimeoutSettings:
        """The one figure, as a provider's four."""
        return TimeoutSettings.model_construct(
            connect_s=min(5.0, self.timeout_s),
            first_byte_s=self.timeout_s,
            idle_s=self.timeout_s,
            total_s=self.timeout_s,
        )


def _or_short(schema: dict[str, Any], kind: str) -> None:
    """In the JSON Schema: the table, or the short form that stands for it."""
    table = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": kind}, table]


class TargetSettings(Section):
    """Where a model can be served: "provider/model", with a weight where several share the load."""

    model_config = ConfigDict(json_schema_extra=lambda schema: _or_short(schema, "string"))

    to: str
    weight: Positive | None = None
    pools: Amounts | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"to": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _two_parts(self) -> TargetSettings:
        if not self.provider or not self.upstream_model:
            raise wrong('a target such as "openai/gpt-4o": provider, slash, the model\'s name there')
        return self

    @property
    def provider(self) -> str:
        """Name of the provider."""
        return self.to.partition("/")[0]

    @property
    def upstream_model(self) -> str:
        """The model's name there; may hold slashes, and one * for the name that was asked for."""
        return self.to.partition("/")[2]


class AbilitySettings(Section):
    """What a model can do: read where a call asked of another model is given to it."""

    context: Positive | None = None
    tools: bool = False
    vision: bool = False
    json_schema: bool = False
    reasoning: bool = False

    def abilities(self) -> Abilities:
        """As targets carry them."""
        from gateway.abilities import Abilities

        return Abilities(**self.model_dump())


class ModelSettings(Section):
    """A public name, or a pattern with *. Targets are tried in order; a route uses those of its own kind."""

    targets: tuple[TargetSettings, ...]
    aliases: PublicNames = ()
    default_output_tokens: Positive = 1024
    unbounded_tokens: Positive = 32_768
    enforce_output_cap: bool = False
    abilities: AbilitySettings = AbilitySettings()
    pools: Amounts = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("targets"), list):
            if not data["targets"]:
                raise wrong('at least one target: targets = ["openai/gpt-4o"]')
            return {**data, "targets": tuple(data["targets"])}
        return data


_ONE_OR_BY_SIZE = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
    ]
}


class PriceSettings(Section):
    """USD per million tokens; per piece for images, requests and units. Exact decimals."""

    input: Price | None = None
    cached_input: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None
    output: Price | None = None
    reasoning: Price | None = None
    audio_input: Price | None = None
    audio_output: Price | None = None
    image: Annotated[dict[str, Price], WithJsonSchema(_ONE_OR_BY_SIZE)] = Field(default_factory=dict)
    request: Price | None = None
    units: dict[str, Price] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _one_image_price(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("image"), int | Decimal):
            return {**data, "image": {"*": data["image"]}}
        return data

    def override(self) -> PriceOverride:
        """As `Prices` takes it."""
        from gateway.prices import PriceOverride

        values: Mapping[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        return PriceOverride(**values)
