"""[server], [state] and [records]: where the gateway listens, what it keeps, what a connection may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gateway.config.values import (
    Count,
    FilePath,
    Listen,
    Networks,
    Positive,
    RootPath,
    Seconds,
    Section,
    Size,
    SomeSeconds,
    TimeZone,
    split_listen,
    wrong,
)

KIB, MIB = 2**10, 2**20


def _one_worker(value: int) -> int:
    if value != 1:
        raise wrong("1: several worker processes are not built yet, run one gateway a data directory")
    return value


def _state_url(value: str) -> str:
    if value != "memory":
        raise wrong('"memory": other backends of the state are not built yet')
    return value


def _records_url(value: str) -> str:
    if value != "sqlite":
        raise wrong('"sqlite": other databases are not built yet')
    return value


class ServerSettings(Section):
    """The process and its listener. Sizes in bytes."""

    listen: Listen = "127.0.0.1:8080"
    workers: Annotated[Positive, AfterValidator(_one_worker)] = 1
    data_dir: FilePath = Path("data")
    root_path: RootPath = ""
    trusted_proxies: Networks = ()
    body_limit: Size = 32 * MIB
    http_wait_cap_s: Annotated[Seconds, Field(le=300)] = 120.0
    drain_s: Seconds = 30.0
    drain_accept_s: Seconds = 0.0
    protocol: Literal["native", "httptools"] = "native"
    header_timeout_s: SomeSeconds = 10.0
    body_timeout_s: SomeSeconds = 30.0
    min_body_rate: Count = 240
    keep_alive_s: SomeSeconds = 75.0
    write_timeout_s: SomeSeconds = 60.0
    max_headers: Positive = 100
    max_header_bytes: Size = 64 * KIB
    max_connections_per_address: Count = 1024
    uncapped: Networks = ("127.0.0.0/8", "::1/128")
    watch: bool = False
    log_format: Literal["auto", "text", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_public: bool = False

    @property
    def host(self) -> str:
        """The address part of `listen`, without the brackets of IPv6."""
        return split_listen(self.listen)[0]

    @property
    def port(self) -> int:
        """The port of `listen`; 0 takes a free one."""
        return split_listen(self.listen)[1]


class StateSettings(Section):
    """Limits and holds."""

    url: Annotated[str, AfterValidator(_state_url)] = "memory"


class RecordsSettings(Section):
    """Clients, keys and the ledger. `pepper_file` None: `pepper` in the data directory."""

    url: Annotated[str, AfterValidator(_records_url)] = "sqlite"
    durability: Literal["process", "power"] = "process"
    journal: Annotated[Size, Field(ge=MIB, le=65_536 * MIB)] = 32 * MIB
    retention_days: Count = 90
    time_zone: TimeZone = "UTC"
    pepper_file: FilePath | None = None
    questions: bool = True
