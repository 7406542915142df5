"""A real gateway in a process of its own, and clients that talk to it over sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

#: Hypothesis draws the same in each run, so that one that changed nothing fails nothing; TIDEGATE_DRAWS=new draws anew.
#: How long an example takes says more about the machine than about us.
settings.register_profile(
    "steady",
    deadline=None,
    derandomize=os.environ.get("TIDEGATE_DRAWS") != "new",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parents[1]
CLIENT_KEY = "tg-test-client-key"
ADMIN_KEY = "tg-test-admin-key"


def clean_env(**more: str) -> dict[str, str]:
    """The environment without provider keys and settings of whoever runs the tests. Compiled modules are kept, whatever
    it says: hundreds of processes start."""
    left_out = ("TIDEGATE", "OPENAI", "ANTHROPIC", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default", **more}


class Commander:
    """Runs commands by `commander.py`, one at a time; it is started when the first one comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def run(self, arguments: tuple[str, ...], env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
        with self._lock, tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
            if self._process is None:
                command = [sys.executable, str(Path(__file__).with_name("commander.py"))]
                self._process = subprocess.Popen(
                    command, env=clean_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            asked = {"arguments": arguments, "env": env, "cwd": str(cwd), "out": out.name, "err": err.name}
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(list(arguments), code, out.read(), err.read())

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=60)


COMMANDER = Commander()


@pytest.fixture(scope="session", autouse=True)
def commander() -> Iterator[None]:
    """Ends the process that runs commands."""
    yield
    COMMANDER.close()


@dataclass
class Server:
    """A gateway process; `address` is its origin."""

    folder: Path
    config: Path
    process: subprocess.Popen[bytes]
    port: int
    env: dict[str, str] = field(default_factory=dict)
    command_line: tuple[str, ...] = ()

    def restart(self, *, kill: bool = False) -> None:
        """Ends the process, by kill -9 or as it should be, starts another on the same port and data, and waits until
        it is ready."""
        if kill:
            self.kill()
        else:
            assert self.stop() == 0, self.output
        self.restart_stopped()

    def restart_stopped(self) -> None:
        """The same, of one that has ended already."""
        self.begin()
        self.wait_ready()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def begin(self) -> None:
        with (self.folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                self.command_line, env=self.env, cwd=self.folder, stdout=output, stderr=output
            )

    def wait_ready(self, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the gateway ended with {self.process.returncode}:\n{self.output}")
            try:
                if self.request("GET", "/readyz", key=None)[0] == 200:
                    return
            except (ConnectionError, urllib.error.URLError):
                time.sleep(0.02)
        self.process.kill()
        raise AssertionError(f"the gateway did not become ready:\n{self.output}")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return (self.folder / "output.txt").read_text()

    def request(
        self, method: str, path: str, body: Any = None, key: str | None = CLIENT_KEY, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request by the standard library; header names with _ for -."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, method=method)
        if data is not None:
            request.add_header("content-type", "application/json")
        if key is not None:
            request.add_header("authorization", f"Bearer {key}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()

    def tidegate(self, *arguments: str) -> Any:
        """The command line against this gateway; the JSON it prints."""
        done = self.command(*arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return COMMANDER.run(arguments, self.env, self.folder)

    def calls(self) -> list[dict[str, Any]]:
        """The ledger's calls, newest first."""
        found: list[dict[str, Any]] = self.tidegate("usage", "--calls", "--json", "--config", str(self.config))
        return found

    def again(self) -> Server:
        """Another process with the same configuration and data, once this one has ended."""
        return start_gateway(self.folder, self.config.read_text())

    def stop(self, grace: float = 15) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


Start = Callable[..., Server]


def start_gateway(folder: Path, config: str = "", *, env: dict[str, str] | None = None, **flags: str) -> Server:
    """Starts `tidegate serve` on a free port and waits until it is ready."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "gateway.toml"
    path.write_text(config)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    keys = {"TIDEGATE_ADMIN_KEY": ADMIN_KEY, "TIDEGATE_CLIENT_KEY": CLIENT_KEY}
    full = clean_env(**{**keys, **(env or {})})
    command = [sys.executable, "-m", "gateway", "serve", "-c", str(path), "--listen", f"127.0.0.1:{port}"]
    command += ["--data-dir", str(folder / "data")]
    for name, value in flags.items():
        command += [f"--{name.replace('_', '-')}", value]
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, env=full, cwd=folder, stdout=output, stderr=output)
    full["TIDEGATE__SERVER__DATA_DIR"] = str(folder / "data")
    server = Server(folder, path, process, port, full, tuple(command))
    server.wait_ready()
    return server


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway with the fake provider inside and generous limits, shared by the tests that only call it."""
    config = """
[clients.tester]
quota = { requests = ["1000000/minute"] }
[[clients.tester.keys]]
secret = "tg-test-shared-key"
[clients.other]
quota = { requests = ["1000000/minute"] }
[[clients.other.keys]]
secret = "tg-test-other-key"
"""
    server = start_gateway(tmp_path_factory.mktemp("gateway"), config)
    yield server
    code = server.stop()
    assert code == 0, server.output
    assert "Traceback" not in server.output, server.output


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts gateways of the test's own; all are stopped, and none may have printed a traceback."""
    servers: list[Server] = []

    def begin(config: str = "", **more: Any) -> Server:
        folder = tmp_path / f"gateway-{len(servers)}"
        servers.append(start_gateway(folder, config, **more))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()
        assert not re.search(r"Traceback|ERROR", server.output), server.output


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python -m gateway ...` in the test's directory, with a clean environment and what is given."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return COMMANDER.run(arguments, clean_env(**env), tmp_path)

    return run


@pytest.fixture(scope="module")
def start_module() -> Iterator[Callable[..., Server]]:
    """As `start`, for gateways that a whole module shares; takes the folder too."""
    servers: list[Server] = []

    def begin(folder: Path, config: str = "", **more: Any) -> Server:
        servers.append(start_gateway(folder, config, **more))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()
        assert not re.search(r"Traceback|ERROR", server.output), server.output


@pytest.fixture(scope="session")
def start_session() -> Iterator[Callable[..., Server]]:
    """As `start_module`, for gateways that last to the end."""
    servers: list[Server] = []

    def begin(folder: Path, config: str = "", **more: Any) -> Server:
        servers.append(start_gateway(folder, config, **more))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()
        assert not re.search(r"Traceback|ERROR", server.output), server.output


@dataclass
class Demo:
    """A fake provider in a process of its own."""

    origin: str
    log: Path
    process: subprocess.Popen[str]

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def stats(self) -> dict[str, Any]:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{self.origin}/fake/stats") as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found


def start_demo(folder: Path, *arguments: str) -> Demo:
    log = folder / "provider.jsonl"
    command = [sys.executable, "-m", "gateway.demo", "--port", "0", "--log", str(log), *arguments]
    process = subprocess.Popen(command, env=clean_env(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    match = None
    while match is None:
        line = process.stdout.readline()
        assert line, "the fake provider did not start"
        match = re.search(r"http://[\d.:]+", line)
    return Demo(match[0], log, process)


@pytest.fixture(scope="session")
def demo_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A fake provider that all tests share."""
    demo = start_demo(tmp_path_factory.mktemp("provider"))
    yield demo
    demo.process.terminate()
    demo.process.wait(10)
    assert demo.process.stdout is not None
    demo.process.stdout.close()


@pytest.fixture
def demo(start_demo_with: Callable[..., Demo]) -> Demo:
    """A fake provider of the test's own."""
    return start_demo_with()


@pytest.fixture
def start_demo_with(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts a fake provider of the test's own, with these arguments of its command line."""
    demos: list[Demo] = []

    def begin(*arguments: str) -> Demo:
        demos.append(start_demo(tmp_path, *arguments))
        return demos[-1]

    yield begin
    for demo in demos:
        demo.process.terminate()
        demo.process.wait(10)
        assert demo.process.stdout is not None
        demo.process.stdout.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts file systems of a few MiB, at a folder of the test's choice; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(mebibytes: int, folder: Path | None = None) -> Path:
        folder = folder or tmp_path / f"disk-{len(mounted)}"
        folder.mkdir(parents=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("mounting a tmpfs is not allowed here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
