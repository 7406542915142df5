"""The systems that can be measured: one file each, and the list of them."""

from __future__ import annotations

from loadtests.bench.systems.base import System
from loadtests.bench.systems.envoy import Envoy
from loadtests.bench.systems.litellm import LiteLLM
from loadtests.bench.systems.nginx import Nginx
from loadtests.bench.systems.portkey import Portkey
from loadtests.bench.systems.tidegate import Tidegate

SYSTEMS: dict[str, type[System]] = {system.name: system for system in (Tidegate, Nginx, Envoy, LiteLLM, Portkey)}
COMPARED = ("tidegate", "nginx", "envoy")  # those that the goals are about; a run without others is whole
