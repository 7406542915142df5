"""The admin socket: how commands ask the process that owns the data directory, one JSON line each way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

Verb = Callable[..., Awaitable[Any]]

_LONGEST_PATH = 100  # sun_path holds 108 bytes on Linux, 104 elsewhere
_LONGEST_LINE = 1024 * 1024
_ANSWER_S = 60.0
_REQUEST_S = 10.0


class NotRunningError(Exception):
    """No gateway listens on the data directory's socket."""


class AdminError(Exception):
    """The running gateway refused or failed the verb; the message is its own. `problems` are those of a configuration,
    as data, where that is why."""

    def __init__(self, message: str, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


class AdminSocket:
    """Serves verbs on data_dir/tidegate.sock, or where that path is too long for a socket, on a path that stands in
    data_dir/tidegate.sock.path. Only this user (0600) can ask. The directory's lock is held by whoever makes one."""

    def __init__(self, data_dir: Path, verbs: Mapping[str, Verb]) -> None:
        self.verbs = dict(verbs)  # may be added to while serving
        self._data_dir = data_dir
        self._server: asyncio.Server | None = None
        self._short: Path | None = None
        self._path = data_dir / "tidegate.sock"
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        note = self._data_dir / "tidegate.sock.path"
        if len(os.fsencode(self._path.absolute())) > _LONGEST_PATH:
            self._short = Path(tempfile.mkdtemp(prefix="tidegate-"))  # 0700
            self._path = self._short / "tidegate.sock"
            note.write_text(str(self._path))
        else:
            note.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listener.fileno(), 0o600)  # before it has a name, so that it never stood open
            listener.bind(str(self._path))
            self._path.chmod(0o600)
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_LONGEST_LINE)
        except BaseException:
            listener.close()
            raise

    async def aclose(self) -> None:
        """Lets verbs that are under way finish."""
        if self._server is None:
            return
        self._server.close()
        if self._answering:
            await asyncio.wait(self._answering, timeout=_REQUEST_S)
        self._path.unlink(missing_ok=True)
        (self._data_dir / "tidegate.sock.path").unlink(missing_ok=True)
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            async with asyncio.timeout(_REQUEST_S):
                line = await reader.readline()
            writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
            await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):
            pass  # no request, a line without end, or the asker left
        finally:
            self._answering.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            name, args = request["verb"], request.get("args", {})
            verb = self.verbs[name]
        except (ValueError, TypeError, KeyError, AttributeError):
            return {"ok": False, "error": f"unknown request; verbs are {', '.join(sorted(self.verbs))}"}
        try:
            return {"ok": True, "result": await verb(**args)}
        except Exception as error:  # the edge: whatever a verb raises is told to the asker, in its own words
            return _refusal(name, error)


def _refusal(verb: str, error: Exception) -> dict[str, Any]:
    """What can't be done as asked is told to who asked; only what should not happen is for our log too."""
    from gateway.config.problems import ConfigError
    from gateway.records.database import RecordsError

    log = structlog.get_logger()
    if isinstance(error, ValueError | RecordsError | ConfigError):
        log.info("a command was refused", verb=verb, reason=str(error))
    else:
        log.error("a command failed", verb=verb, exc_info=error)
    problems = error.as_json() if isinstance(error, ConfigError) else []
    return {"ok": False, "error": str(error) or type(error).__name__, "problems": problems}


async def ask(data_dir: Path, verb: str, **args: Any) -> Any:
    """The verb's result from the running gateway. Raises NotRunningError, AdminError."""
    return await ask_within(_ANSWER_S, data_dir, verb, **args)


async def ask_within(within_s: float, data_dir: Path, verb: str, **args: Any) -> Any:
    """The same, within so many seconds."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket_path(data_dir)), limit=_LONGEST_LINE)
    except PermissionError as error:
        raise AdminError(f"the gateway on {data_dir} runs as another user") from error
    except OSError as error:  # no socket, nobody behind it, no directory, or a path too long to have one
        raise NotRunningError(f"no gateway runs on {data_dir}") from error
    try:
        writer.write(json.dumps({"verb": verb, "args": args}).encode() + b"\n")
        await writer.drain()
        async with asyncio.timeout(within_s):
            line = await reader.read(-1)
    except TimeoutError as error:
        raise AdminError(
            f"the gateway on {data_dir} did not answer {verb} within {within_s:g} s: is its process stopped or stuck?"
        ) from error
    except ConnectionError as error:
        raise NotRunningError(f"the gateway on {data_dir} ended") from error
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    if not line:
        raise NotRunningError(f"the gateway on {data_dir} ended before it answered")
    answer = json.loads(line)
    if not answer["ok"]:
        raise AdminError(answer["error"], answer.get("problems", ()))
    return answer["result"]


def socket_path(data_dir: Path) -> Path:
    """Where a running gateway listens."""
    try:
        return Path((data_dir / "tidegate.sock.path").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return data_dir / "tidegate.sock"
