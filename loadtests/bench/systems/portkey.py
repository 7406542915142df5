"""Portkey's gateway from npm, in a folder of its own, pointed at the responder by request headers."""

from __future__ import annotations

import json
import shutil

from loadtests.bench.errors import BenchError
from loadtests.bench.systems import venv
from loadtests.bench.systems.base import System

# Newer versions of its server adapter share the headers of a fetched answer instead of copying them, and Portkey's
# change of those headers then turns every stream into a 500; so the adapter is held at one that copies.
PACKAGES = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    "overrides": {"@hono/node-server": "1.13.8"},
}


class Portkey(System):
    name = "portkey"
    what = "Portkey 1.15 (Node)"

    def install(self) -> None:
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise BenchError("needs node and npm")
        folder = self.build / "bench-npm"
        self._node = node
        self._server = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        wanted = json.dumps(PACKAGES)
        stated = folder / "package.json"
        if not self._server.exists() or stated.read_text() != wanted:
            folder.mkdir(parents=True, exist_ok=True)
            stated.write_text(wanted)
            print(f"installing @portkey-ai/gateway into {folder} (once)", flush=True)
            venv.run([npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"])

    def configure(self) -> None:
        """Nothing to write: each request says where it goes."""

    def command(self) -> list[str]:
        return [self._node, str(self._server.resolve()), "--headless", f"--port={self.port}"]

    def environment(self) -> dict[str, str]:
        return {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}

    def headers(self) -> dict[str, str]:
        host = f"http://127.0.0.1:{self.upstream_port}/v1"
        return {**super().headers(), "x-portkey-provider": "openai", "x-portkey-custom-host": host}

    def settings(self) -> list[str]:
        return ["--headless, provider and host by request headers"]
