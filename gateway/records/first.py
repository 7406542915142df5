"""The first keys: one for the operator, one for the first client; given in the environment, or made and shown once."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.clients import Role
from gateway.records.database import RecordsError
from gateway.secret import WANTED, is_fit, new_secret

#: Client, role, and the variable whose value is taken instead of a new secret.
_WANTED: tuple[tuple[str, Role, str], ...] = (
    ("admin", "admin", "TIDEGATE_ADMIN_KEY"),
    ("default", "client", "TIDEGATE_CLIENT_KEY"),
)


@dataclass(frozen=True, slots=True)
class FirstKeys:
    """What a first start made; "" for a key that was given or not needed. `path` is the 0600 file they were written
    to, "" when the caller shows them on a terminal instead."""

    admin: str
    client: str
    path: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """A key to make at the first start."""

    client_id: str
    role: Role
    secret: str
    variable: str
    is_given: bool


def chosen(taken: Collection[str]) -> list[Chosen]:
    """For each client that gateway.toml does not have. Raises RecordsError for a variable that can't be a key, or two
    that are the same."""
    found: list[Chosen] = []
    for client_id, role, variable in _WANTED:
        if client_id in taken:
            continue
        given = os.environ.get(variable, "")
        if given and not is_fit(given):
            raise RecordsError(f"{variable} must be {WANTED}")
        found.append(Chosen(client_id, role, given or new_secret(), variable, bool(given)))
    if len({one.secret for one in found}) < len(found):
        names = " and ".join(one.variable for one in found)
        raise RecordsError(f"{names} hold the same key: whoever calls would be an admin. Give each its own")
    return found


def written(data_dir: Path, made: Mapping[Role, str]) -> str:
    """The path of the file with the secrets. Before the commit: a key that nobody could read would be worse than a
    file about a start that failed."""
    path = data_dir / "first-keys.txt"
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.writelines(f"{role} key: {secret}\n" for role, secret in made.items() if secret)
    structlog.get_logger().info("first keys written; read them, then delete the file", path=str(path))
    return str(path)
