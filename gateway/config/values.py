"""The values that settings are made of: what may be written in TOML, and what it becomes.

Each type turns what a person writes ("32 MiB", 2.5 dollars, "10.0.0.0/8") into what the gateway counts with (bytes,
pico-dollars, a checked network), and back again when it is dumped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from gateway.config.problems import sounds_secret

PUSD = 10**12  # pico-dollars in a dollar

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a header's name, RFC 9110 section 5.1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")

#: Never set by hand: framing is the client's own, and what a client sent as its credential stays here.
FRAMING_HEADERS = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
        "proxy-connection",
    }
)  # fmt: skip
CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "proxy-authorization", "cookie"})


class Section(BaseModel):
    """A table of gateway.toml: unknown keys are errors, nothing is changed after loading."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True, hide_input_in_errors=True
    )


def wrong(expected: str, key: str = "") -> PydanticCustomError:
    """The error of a value that is not what it should be; `expected` completes "expected ...".

    `key` names the key of the table, where a rule about the whole table found it.
    """
    return PydanticCustomError("wrong", "{expected}", {"expected": expected, "key": key})


def plain_text(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(plain_text(inner) for inner in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{key} = {'...' if sounds_secret(key) else plain_text(inner)}" for key, inner in value.items())
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def parse_size(value: Any) -> int:
    """Bytes of 1048576, "32 MiB", "1.5 GB". Raises PydanticCustomError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[2].lower() not in _UNITS:
        raise wrong('a size such as "32 MiB" (units B, KB, MB, GB, KiB, MiB, GiB) or a whole number of bytes')
    size = Decimal(found[1]) * _UNITS[found[2].lower()]
    if size != size.to_integral_value():
        raise wrong('a size of whole bytes, such as "32 MiB"')
    return int(size)


def write_size(size: int) -> str | int:
    """Shortest exact spelling: 33554432 is "32 MiB"."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size and size % factor == 0:
            return f"{size // factor} {unit}"
    return size


def _scaled(value: Any, factor: int, expected: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise wrong(expected)
    if isinstance(value, Decimal) and not value.is_finite():
        raise wrong(expected)
    scaled = Decimal(value) * factor
    if scaled < 0 or scaled != scaled.to_integral_value():
        raise wrong(expected)
    return int(scaled)


def parse_usd(value: Any) -> int:
    """Pico-dollars of an amount in dollars; exact, never through a float. Raises PydanticCustomError."""
    return _scaled(value, PUSD, "an amount in US dollars: 0 or more, at most 12 decimals")


def parse_milli(value: Any) -> int:
    """Thousandths of a factor. Raises PydanticCustomError."""
    return _scaled(value, 1000, "a factor of 0 or more, at most 3 decimals, such as 1.5")


def write_scaled(value: int | None, factor: int) -> Decimal | int | None:
    """The number that was written, a whole one where it is one."""
    if value is None:
        return None
    return value // factor if value % factor == 0 else Decimal(value) / factor


def _price(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise wrong("a price in US dollars, a number of 0 or more")
    price = Decimal(value)
    if not price.is_finite() or price < 0:
        raise wrong("a price in US dollars, a number of 0 or more")
    return price


def _seconds(value: Any) -> float:
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not is_number or not isfinite(value) or not 0 <= value < 10**9:
        raise wrong("a number of seconds, 0 or more")
    return float(value)


#: What of a call a pool may count, besides a figure of the configuration.
MEASURES = ("tokens", "input_tokens", "output_tokens", "requests", "images", "characters", "bytes")


def _amount(value: Any) -> int | str:
    if value in MEASURES and isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise wrong(f"a whole number of units a call, or one of {', '.join(map(plain_text, MEASURES))}")
    return value


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _path(value: Any) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise wrong("a path, in quotes")
    return Path(value).expanduser()


def _time_zone(value: str) -> str:
    if value == "UTC":
        return value
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(value)
    except (OSError, ValueError, KeyError):  # not found is a KeyError, a directory an OSError, a bad path a ValueError
        raise wrong('a time zone of the IANA list, such as "UTC" or "Europe/Vienna"') from None
    return value


def _network(value: str) -> str:
    from ipaddress import ip_network

    try:
        return str(ip_network(value))
    except ValueError:
        raise wrong('an address or network such as "10.0.0.0/8" or "::1"') from None


def _rate(value: str) -> str:
    from gateway.rates import parse_rate

    try:
        parse_rate(value)
    except ValueError:
        raise wrong('one rate such as "600/minute", "5 per 2 hours" or "1000000/day"') from None
    return value


def _listen(value: str) -> str:
    host, port = split_listen(value)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_listen(value: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:8080", "[::1]:8080", ":8080" (all interfaces). Raises PydanticCustomError."""
    expected = 'an address and a port such as "127.0.0.1:8080" or "[::1]:8080"'
    host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise wrong(expected)
    if host.startswith("[") and host.endswith("]"):
        return _ipv6(host[1:-1], expected), int(port)
    if not re.fullmatch(r"[A-Za-z0-9._-]*", host) or (re.fullmatch(r"[0-9.]+", host) and not _is_ipv4(host)):
        raise wrong(expected)
    return host or "0.0.0.0", int(port)  # noqa: S104 (":8080" asks for it, as everywhere)


def _ipv6(host: str, expected: str) -> str:
    from ipaddress import IPv6Address

    try:
        return str(IPv6Address(host))
    except ValueError:
        raise wrong(expected) from None


def _is_ipv4(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and all(part.isdigit() and int(part) < 256 for part in parts)


def _root_path(value: str) -> str:
    path = value.rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path):
        raise wrong('a path prefix such as "/ai", or "" for none')
    return path


def normal_url(value: str) -> str:
    """A base URL without a trailing slash and with one /v1 where there were two. Raises PydanticCustomError."""
    from urllib.parse import urlsplit

    expected = 'a base URL such as "https://api.openai.com/v1"'
    url = value.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong(expected) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or re.search(r"[\s\\]", url):
        raise wrong(expected)
    if "@" in parts.netloc:
        raise wrong("a base URL without user or password in it: credentials belong in api_key or headers")
    if parts.query or parts.fragment:
        raise wrong("a base URL without ? or #: a fixed query belongs in `query`")
    path = re.sub(r"(/v1)(/v1)+(?=/|$)", r"\1", re.sub(r"/{2,}", "/", parts.path))
    return parts._replace(path=path).geturl()


def header_name(value: str) -> str:
    """A header's name in lower case. Raises PydanticCustomError."""
    if not _TOKEN.fullmatch(value) or value.lower() in FRAMING_HEADERS:
        raise wrong("the name of a header, other than those that frame a request (host, content-length, ...)")
    return value.lower()


def _passed(value: str) -> str:
    name = header_name(value)
    if name in CREDENTIAL_HEADERS:
        raise wrong("the name of a header that is not the client's credential: that one never goes upstream")
    return name


def _headers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for text in value.values():
        if re.search(r"[\r\n\0]", text.get_secret_value()):
            raise wrong("a header value on one line")
    return {header_name(name): text for name, text in value.items()}


def _health_path(value: str) -> str:
    if value and not re.fullmatch(r"/[\x21-\x7e]*", value):
        raise wrong('a path that costs nothing to ask, such as "/health"')
    return value


def _named(pattern: re.Pattern[str], what: str) -> Any:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise wrong(what)
        return value

    return AfterValidator(check)


def _public_name(value: str) -> str:
    if not value or len(value) > 256 or re.search(r"[\x00-\x20\x7f?\[\]]", value):
        raise wrong("a model's name without spaces; * stands for any part of it")
    return value


def unique(values: Iterable[str], what: str) -> None:
    """Raises PydanticCustomError where one of the values stands twice."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise wrong(f"each {what} once; {value!r} stands twice")
        seen.add(value)


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(write_size),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["32 MiB"]}, {"type": "integer", "minimum": 0}]}),
]
Usd = Annotated[
    int,
    BeforeValidator(parse_usd),
    PlainSerializer(lambda value: write_scaled(value, PUSD)),
    WithJsonSchema({"type": "number", "minimum": 0}),
]
Milli = Annotated[
    int,
    BeforeValidator(parse_milli),
    PlainSerializer(lambda value: write_scaled(value, 1000)),
    WithJsonSchema({"type": "number", "minimum": 0}),
]
Price = Annotated[Decimal, BeforeValidator(_price), WithJsonSchema({"type": "number", "minimum": 0})]
Seconds = Annotated[float, BeforeValidator(_seconds), WithJsonSchema({"type": "number", "minimum": 0})]
SomeSeconds = Annotated[Seconds, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Percent = Annotated[int, Field(ge=0, le=100)]
FilePath = Annotated[Path, BeforeValidator(_path), PlainSerializer(str), WithJsonSchema({"type": "string"})]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Network = Annotated[str, AfterValidator(_network)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_listed)]
Rate = Annotated[str, AfterValidator(_rate)]
Codings = Annotated[tuple[Literal["zstd", "gzip"], ...], BeforeValidator(_listed)]
Rates = Annotated[tuple[Rate, ...], BeforeValidator(_listed)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Listen = Annotated[str, AfterValidator(_listen)]
BaseUrl = Annotated[str, AfterValidator(lambda value: normal_url(value) if value else value)]
RootPath = Annotated[str, AfterValidator(_root_path)]
HeaderName = Annotated[str, AfterValidator(header_name)]
PassedHeaders = Annotated[tuple[Annotated[str, AfterValidator(_passed)], ...], BeforeValidator(_listed)]
HealthPath = Annotated[str, AfterValidator(_health_path)]
Keys = Annotated[tuple[SecretStr, ...], BeforeValidator(_listed)]
Headers = Annotated[dict[str, SecretStr], AfterValidator(_headers)]
Name = Annotated[str, _named(_NAME, "a name of letters, digits, '.', '_' and '-', at most 64")]
Id = Annotated[str, _named(_ID, "an id of letters, digits and any of ._:@+-, at most 128")]
PublicName = Annotated[str, AfterValidator(_public_name)]
Amount = Annotated[
    int | str,
    BeforeValidator(_amount),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "enum": list(MEASURES)}]}),
]
#: By pool, what a call takes of it.
Amounts = dict[Name, Amount]
PublicNames = Annotated[tuple[PublicName, ...], BeforeValidator(_listed)]
