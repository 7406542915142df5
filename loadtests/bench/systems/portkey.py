"""Portkey's gateway from npm, in a folder of its own, pointed at the responder by request headers."""

from __future__ import annotations

import shutil

from loadtests.bench.errors import CannotMeasure
from loadtests.bench.systems import venv
from loadtests.bench.systems.base import System

PACKAGE = "@portkey-ai/gateway@1.15.2"


class Portkey(System):
    name = "portkey"
    what = "Portkey 1.15 (Node)"

    def install(self) -> None:
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise CannotMeasure("needs node and npm")
        folder = self.build / "bench-npm"
        self._node = node
        self._server = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        if not self._server.exists():
            folder.mkdir(parents=True, exist_ok=True)
            print(f"installing {PACKAGE} into {folder} (once)", flush=True)
            venv.run([npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE])

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
