"""The admin socket: for its owner only, one question a line, every failure in words."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.control.socket import AdminError, AdminSocket, NotRunningError, ask, socket_path


async def echo(**args: Any) -> Any:
    return args


async def fail() -> Any:
    raise ValueError("not today")


async def large() -> Any:
    return ["x" * 1000] * 5000


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[AdminSocket]:
    socket = AdminSocket(tmp_path, {"echo": echo, "fail": fail, "large": large})
    await socket.start()
    yield socket
    await socket.aclose()


async def test_a_verb_is_asked_and_answered(server: AdminSocket, tmp_path: Path) -> None:
    assert await ask(tmp_path, "echo", a=1, b=["ü"]) == {"a": 1, "b": ["ü"]}
    assert len(await ask(tmp_path, "large")) == 5000
    answers = await asyncio.gather(*(ask(tmp_path, "echo", n=n) for n in range(50)))
    assert answers == [{"n": n} for n in range(50)]


async def test_only_its_owner_can_ask(server: AdminSocket, tmp_path: Path) -> None:
    assert (tmp_path / "tidegate.sock").stat().st_mode & 0o777 == 0o600


async def test_verbs_can_be_added_while_it_runs(server: AdminSocket, tmp_path: Path) -> None:
    server.verbs["late"] = echo
    assert await ask(tmp_path, "late") == {}


async def test_failures_are_told_in_the_verbs_own_words(server: AdminSocket, tmp_path: Path) -> None:
    with pytest.raises(AdminError, match=r"^not today$"):
        await ask(tmp_path, "fail")
    with pytest.raises(AdminError, match="unknown request; verbs are echo, fail, large"):
        await ask(tmp_path, "reboot")
    with pytest.raises(AdminError, match="unexpected keyword argument 'x'"):
        await ask(tmp_path, "fail", x=1)


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b"null\n", b"{}\n", b'{"verb": []}\n', b"\xff\xfe\n", b'{"verb": "echo"']
)
async def test_nonsense_is_answered_and_ends_nothing(server: AdminSocket, tmp_path: Path, line: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "tidegate.sock"))
    writer.write(line)
    writer.write_eof()
    answer = json.loads(await reader.read())
    assert answer["ok"] is False
    writer.close()
    await writer.wait_closed()
    assert await ask(tmp_path, "echo") == {}


async def test_an_endless_line_is_cut_off(server: AdminSocket, tmp_path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "tidegate.sock"))
    writer.write(b"x" * (2 * 1024 * 1024))
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    assert await ask(tmp_path, "echo") == {}


async def test_without_a_gateway_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError):
        await ask(tmp_path, "echo")
    with pytest.raises(NotRunningError):
        await ask(tmp_path / "missing", "echo")
    socket = AdminSocket(tmp_path, {"echo": echo})
    await socket.start()
    (tmp_path / "tidegate.sock").rename(tmp_path / "kept")
    await socket.aclose()
    (tmp_path / "kept").rename(tmp_path / "tidegate.sock")  # what a killed gateway leaves
    with pytest.raises(NotRunningError):
        await ask(tmp_path, "echo")
    again = AdminSocket(tmp_path, {"echo": echo})
    await again.start()
    assert await ask(tmp_path, "echo") == {}
    await again.aclose()
    assert list(tmp_path.iterdir()) == []


async def test_a_path_too_long_for_a_socket_is_reached_all_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    socket = AdminSocket(deep, {"echo": echo})
    await socket.start()
    short = socket_path(deep)
    assert len(str(short)) < 100
    assert short.parent.stat().st_mode & 0o777 == 0o700
    assert short.stat().st_mode & 0o777 == 0o600
    assert await ask(deep, "echo", a=1) == {"a": 1}
    await socket.aclose()
    assert not short.parent.exists()
    assert list(deep.iterdir()) == []
    with pytest.raises(NotRunningError):
        await ask(deep, "echo")


async def test_closing_lets_a_verb_finish(tmp_path: Path) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        entered.set()
        await leave.wait()
        return "done"

    socket = AdminSocket(tmp_path, {"slow": slow})
    await socket.start()
    asking = asyncio.create_task(ask(tmp_path, "slow"))
    await entered.wait()
    closing = asyncio.create_task(socket.aclose())
    await asyncio.sleep(0)
    leave.set()
    assert await asking == "done"
    await closing
