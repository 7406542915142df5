"""LiteLLM's proxy from PyPI, in an environment of its own, as quick as its documentation says how to make it."""

from __future__ import annotations

import json

from loadtests.bench.cases import ALL, TINY
from loadtests.bench.systems import venv
from loadtests.bench.systems.base import System

PACKAGE = "litellm[proxy]==1.108.1"


class LiteLLM(System):
    name = "litellm"
    what = "LiteLLM 1.108, no database"
    ready_path = "/health/readiness"
    start_s = 120.0

    def install(self) -> None:
        self._bin = venv.environment(self.build / "bench-venv-litellm", [PACKAGE]) / "bin"

    def configure(self) -> None:
        upstream = {"model": "openai/bench", "api_base": f"http://127.0.0.1:{self.upstream_port}/v1", "api_key": "sk-x"}
        models = sorted({case.model for case in (*ALL, *TINY.cases)})
        configuration = {
            "model_list": [
                {"model_name": name, "litellm_params": {**upstream, "model": f"openai/{name}"}} for name in models
            ],
            "general_settings": {"master_key": "sk-bench-0000000000000000000000000000000000000000"},
            "litellm_settings": {"turn_off_message_logging": True, "telemetry": False, "set_verbose": False},
        }
        (self.folder / "config.yaml").write_text(json.dumps(configuration, indent=1))  # JSON is YAML too

    def command(self) -> list[str]:
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--num_workers", "1", "--telemetry", "False"]
        return [str((self._bin / "litellm").resolve()), "--config", str(self.folder / "config.yaml"), *options]

    def environment(self) -> dict[str, str]:
        return {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}

    def settings(self) -> list[str]:
        return ["1 worker, master key, no database, no callbacks, log level ERROR"]
