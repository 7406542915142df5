"""What differs between two configurations, and which of it a running gateway can't take over."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from gateway.config.problems import Path, dotted
from gateway.config.settings import Settings

#: Bound when the process starts: a listener, files it owns, the protocol class, the log.
NEEDS_RESTART = frozenset(
    {
        "server.listen", "server.workers", "server.data_dir", "server.root_path", "server.drain_s", "server.protocol",
        "server.drain_accept_s", "overload.min_read_rate", "overload.unsent_limit",
        "server.header_timeout_s", "server.body_timeout_s", "server.min_body_rate", "server.keep_alive_s",
        "server.write_timeout_s", "server.max_headers", "server.max_header_bytes", "server.max_connections_per_address",
        "server.uncapped", "server.watch", "server.log_format", "server.log_level", "state.url", "records.url",
        "records.durability", "records.journal", "records.retention_days", "records.time_zone", "records.pepper_file",
    }
)  # fmt: skip


def changes(old: Settings, new: Settings) -> list[str]:
    """Dotted keys whose values differ, sorted; a table that came or went is one key. Secrets are compared in clear."""
    found = _differences((), old.model_dump(by_alias=True), new.model_dump(by_alias=True))
    return sorted(dotted(path) for path in found)


def needs_restart(changed: list[str]) -> list[str]:
    """Those of the changed keys that a reload leaves as they were."""
    return [key for key in changed if key in NEEDS_RESTART]


def _differences(path: Path, old: Any, new: Any) -> list[Path]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[Path] = []
        for key in {**old, **new}:
            if key not in old or key not in new:
                found.append((*path, key))
            else:
                found += _differences((*path, key), old[key], new[key])
        return found
    return [] if _clear(old) == _clear(new) else [path]


def _clear(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: _clear(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clear(inner) for inner in value]
    return value
