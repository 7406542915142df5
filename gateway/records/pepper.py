"""The pepper: the secret without which the stored hashes of keys are worth nothing. Kept apart from them.

The database keeps a fingerprint of it, so that another pepper is noticed at the start, not by every client's 401.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, select, update

from gateway.directory import digest_of
from gateway.records.database import Database, Lock, RecordsError
from gateway.records.schema import keys, pepper_state

_BYTES = 32
_SHORTEST = 16
_WAY_OUT = "If it is lost for good, `tidegate keys forget-pepper` ends those keys, so that new ones can be made."


@dataclass(frozen=True, slots=True)
class Pepper:
    """The secret, and in words where it stands."""

    secret: bytes
    where: str


def load_pepper(data_dir: Path, named: Path | None, connection: Connection) -> bytes:
    """The file `named`, else TIDEGATE_PEPPER, else the file data_dir/pepper, which is made (0600) when missing and no
    key needs it. Raises RecordsError for one that others can read, that is too short, or that the database's keys were
    not made with. Hosts share it."""
    with connection.begin():
        found = find_pepper(data_dir, named, connection)
        known = connection.execute(select(pepper_state.c.fingerprint)).scalar()
    pepper = _made(data_dir / "pepper") if found is None else found
    fingerprint = _fingerprint(pepper.secret)
    if fingerprint != known:
        with connection.begin():
            connection.execute(delete(pepper_state))
            connection.execute(insert(pepper_state).values(id=1, fingerprint=fingerprint))
    return pepper.secret


def find_pepper(data_dir: Path, named: Path | None, connection: Connection) -> Pepper | None:
    """As `load_pepper`, and changes nothing: None where one would be made."""
    needed = _valid_keys(connection)
    pepper = _read(data_dir, named, needed)
    known = connection.execute(select(pepper_state.c.fingerprint)).scalar()
    if pepper is not None and needed and known not in (None, _fingerprint(pepper.secret)):
        raise RecordsError(
            f"the pepper in {pepper.where} is not the one that the {needed} keys in {data_dir / 'tidegate.db'} were "
            f"made with, so none of them would be valid. Bring the old one back, into that place. {_WAY_OUT}"
        )
    return pepper


def forget_pepper(data_dir: Path, wall_ns: int) -> int:
    """Ends every key of the database and forgets which pepper they were made with; how many ended. Blocks. Raises
    RecordsError while a gateway runs."""
    lock = Lock(data_dir)
    try:
        database = Database(data_dir / "tidegate.db", safe=False)
        try:
            with database.transaction(full=True) as connection:
                ended = _valid_keys(connection)
                valid = keys.c.revoked_wall_ns.is_(None)
                connection.execute(update(keys).where(valid).values(revoked_wall_ns=wall_ns))
                connection.execute(delete(pepper_state))
        finally:
            database.close()
    finally:
        lock.release()
    return ended


def _valid_keys(connection: Connection) -> int:
    valid = select(func.count()).select_from(keys).where(keys.c.revoked_wall_ns.is_(None))
    return int(connection.execute(valid).scalar_one())


def _fingerprint(pepper: bytes) -> str:
    return digest_of(pepper, b"tidegate: which pepper is it").hex()[:32]


def _read(data_dir: Path, named: Path | None, needed: int) -> Pepper | None:
    if named is not None:
        try:
            return _checked(named.read_text("ascii"), str(named))
        except OSError as error:
            raise RecordsError(f"records.pepper_file {named} can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RecordsError(f"records.pepper_file {named} is not text") from None
    given = os.environ.get("TIDEGATE_PEPPER", "")
    if given:
        return _checked(given, "TIDEGATE_PEPPER")
    path = data_dir / "pepper"
    if path.exists():
        _closed_to_others(path)
        return _checked(path.read_text("ascii", errors="replace"), str(path))
    if needed:
        raise RecordsError(
            f"the pepper {path} is missing, and without it none of the {needed} keys in {data_dir / 'tidegate.db'} is "
            f"valid. Bring it back from a backup, or give it in TIDEGATE_PEPPER. {_WAY_OUT}"
        )
    return None


def _closed_to_others(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise RecordsError(f"the pepper {path} is open to other users ({mode:04o}): chmod 600 {path}")


def _made(path: Path) -> Pepper:
    made = secrets.token_hex(_BYTES)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(made + "\n")
        file.flush()
        os.fsync(fd)
    return Pepper(made.encode(), str(path))


def _checked(text: str, where: str) -> Pepper:
    pepper = text.strip().encode()
    if len(pepper) < _SHORTEST:
        raise RecordsError(
            f"the pepper in {where} is shorter than {_SHORTEST} characters; `openssl rand -hex 32` makes one"
        )
    return Pepper(pepper, where)
