"""What the inbound protocol class costs: an empty handler behind it, against stock uvicorn with httptools.

    .venv/bin/python -m loadtests.bench_server [--rounds 5] [--seconds 3]

The server has core 0, wrk (Debian) core 1; systems alternate, and medians with the spread are printed as JSON, in
microseconds of CPU a request of the whole server process. `get` is wrk's bare GET; `sdk` a POST of 1.2 KB with the
headers that OpenAI's Python SDK sends.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SYSTEMS = {"tidegate": "gateway.server.protocol:TidegateProtocol", "uvicorn": "httptools"}
SDK_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": "OpenAI/Python 3.57.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "3.57.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64",
    "Authorization": "Bearer sk-" + "a" * 40,
}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read the request, answer two bytes."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def sdk_script(folder: Path) -> Path:
    """wrk's script for a request as the SDK sends it."""
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello " * 190}]})
    lines = ['wrk.method = "POST"', f"wrk.body = {json.dumps(body)}"]
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in SDK_HEADERS.items()]
    path = folder / "sdk.lua"
    path.write_text("\n".join(lines))
    return path


@contextmanager
def server(protocol: str) -> Iterator[tuple[int, int]]:
    """(pid, port) of a server on core 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "loadtests.bench_server:app", "--http", protocol, "--port", str(port)]
    command += ["--no-access-log", "--log-level", "warning", "--no-proxy-headers", "--no-server-header"]
    process = subprocess.Popen(["taskset", "-c", "0", *command], cwd=ROOT)
    try:
        for _ in range(200):
            if socket.socket().connect_ex(("127.0.0.1", port)) == 0:
                break
            time.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(10)


def cpu_us(pid: int) -> float:
    """CPU time of a process so far, in microseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


def load(port: int, seconds: int, concurrency: int, script: Path | None) -> int:
    """Requests served in so many seconds."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{concurrency}", f"-d{seconds}"]
    command += ["-s", str(script)] if script else []
    out = subprocess.run([*command, f"http://127.0.0.1:{port}/v1/x"], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"the run had errors:\n{out}")
    return next(int(line.split()[0]) for line in out.splitlines() if "requests in" in line)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        subprocess.run([ROOT / "scripts" / "setup", "system", "wrk"], check=True)
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    scripts = {"get": None, "sdk": sdk_script(build)}
    figures: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for name, protocol in SYSTEMS.items():
            with server(protocol) as (pid, port):
                for load_name, script in scripts.items():
                    load(port, 1, options.concurrency, script)
                    before = cpu_us(pid)
                    count = load(port, options.seconds, options.concurrency, script)
                    figures.setdefault((name, load_name), []).append((cpu_us(pid) - before) / count)
    result: dict[str, dict[str, dict[str, float]]] = {}
    for (name, load_name), values in figures.items():
        row = {"median": statistics.median(values), "least": min(values), "most": max(values)}
        result.setdefault(load_name, {})[name] = {key: round(value, 1) for key, value in row.items()}
    for rows in result.values():
        rows["ratio"] = {"median": round(rows["tidegate"]["median"] / rows["uvicorn"]["median"], 3)}
    (build / "bench_server.json").write_text(json.dumps(result, indent=2))
    print(json.dumps(result, indent=2))
    print(f"cores: {os.cpu_count()}; ratio to stock uvicorn: {result['get']['ratio']}, {result['sdk']['ratio']}")


if __name__ == "__main__":
    main()
