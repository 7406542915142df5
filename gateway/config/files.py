"""Files that settings name: where relative paths start from, and the credentials that are read from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

from pydantic import SecretStr

from gateway.config.layers import Layers
from gateway.config.problems import Path, Problem
from gateway.config.settings import Settings
from gateway.config.translate import Place
from gateway.secret import WANTED, is_fit

#: Keys that hold a path; relative ones are meant from the folder of the file that names them.
_PATHS = ("data_dir", "pepper_file", "api_key_file", "secret_file", "ca_file")
#: Keys that name a file with a credential, and the key that takes its content.
_SECRET_FILES = {"api_key_file": "api_key", "secret_file": "secret"}

Change = Callable[[Any, Path], Any]  # a section and its path, to the section that takes its place


def resolved(settings: Settings, layers: Layers, folder: FilePath) -> Settings:
    """With absolute paths: from the file's folder, or from the working directory where a flag or variable set them."""

    def absolute(section: Any, path: Path) -> Any:
        update = {}
        for name in _PATHS:
            value = getattr(section, name, None)
            if value is not None:
                start = folder if layers.origin((*path, name)) is None else FilePath.cwd()
                update[name] = start / value
        return section.model_copy(update=update) if update else section

    return _changed(settings, absolute)


def with_secrets(settings: Settings, place: Place, problems: list[Problem]) -> tuple[Settings, list[str]]:
    """With the content of api_key_file in api_key, of secret_file in secret; and warnings about their modes."""
    warnings: list[str] = []

    def filled(section: Any, path: Path) -> Any:
        for name, target in _SECRET_FILES.items():
            file = getattr(section, name, None)
            if file is None:
                continue
            try:
                section = section.model_copy(update={target: SecretStr(_credential(file, target))})
                if file.stat().st_mode & 0o007:
                    warnings.append(f"{file} is open to every user of this machine: chmod 600 {file}")
            except (OSError, ValueError) as error:
                problems.append(_unusable(file, error, (*path, name), place))
        return section

    return _changed(settings, filled), warnings


def _credential(file: FilePath, target: str) -> str:
    text = file.read_text(encoding="utf-8").strip()
    if not text:
        raise ValueError("it is empty")
    if len(text.split()) > 1:
        raise ValueError("it holds more than one word")
    if target == "secret" and not is_fit(text):
        raise ValueError(f"the secret must be {WANTED}")
    return text


def _unusable(file: FilePath, error: Exception, path: Path, place: Place) -> Problem:
    reason = str(error.strerror) if isinstance(error, OSError) else str(error)
    return place.problem(
        f"{str(file)!r} can't be used: {reason}",
        path,
        expected="a readable file that holds the credential and nothing else",
    )


def _changed(settings: Settings, change: Change) -> Settings:
    """A copy in which every section that may name a file has been put through `change`."""
    clients = {}
    for name, client in settings.clients.items():
        keys = tuple(change(key, ("clients", name, "keys", index)) for index, key in enumerate(client.keys))
        same = all(new is old for new, old in zip(keys, client.keys, strict=True))  # mostly, and copies are not cheap
        clients[name] = client if same else client.model_copy(update={"keys": keys})
    return settings.model_copy(
        update={
            "server": change(settings.server, ("server",)),
            "records": change(settings.records, ("records",)),
            "providers": {name: change(one, ("providers", name)) for name, one in settings.providers.items()},
            "workers": {name: change(one, ("workers", name)) for name, one in settings.workers.items()},
            "clients": clients,
        }
    )
