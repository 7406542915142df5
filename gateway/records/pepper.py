"""The pepper: the secret without which the stored hashes of keys are worth nothing. Kept apart from them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from gateway.records.database import RecordsError

_BYTES = 32
_SHORTEST = 16


def load_pepper(data_dir: Path) -> bytes:
    """TIDEGATE_PEPPER, else the file data_dir/pepper, which is made (0600) when missing. Hosts share it."""
    given = os.environ.get("TIDEGATE_PEPPER", "")
    if given:
        return _checked(given, "TIDEGATE_PEPPER")
    path = data_dir / "pepper"
    try:
        return _checked(path.read_text("ascii"), str(path))
    except FileNotFoundError:
        pass
    made = secrets.token_hex(_BYTES)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(made + "\n")
        file.flush()
        os.fsync(fd)
    return made.encode()


def _checked(text: str, where: str) -> bytes:
    pepper = text.strip().encode()
    if len(pepper) < _SHORTEST:
        raise RecordsError(
            f"the pepper in {where} is shorter than {_SHORTEST} characters; `openssl rand -hex 32` makes one"
        )
    return pepper
