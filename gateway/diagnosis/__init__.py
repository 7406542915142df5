"""Diagnosis: what `tidegate doctor` looks at, one file a subject. Nothing here asks for anything that is paid."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import chain

from gateway.config import Loaded, effective
from gateway.diagnosis.addresses import client_addresses, own_address
from gateway.diagnosis.clock import clock
from gateway.diagnosis.endpoints import Probe, probe_provider, probe_worker
from gateway.diagnosis.finding import Finding
from gateway.diagnosis.ground import ground
from gateway.diagnosis.running import running
from gateway.records.agreement import disagreements

__all__ = ["Finding", "examine"]


async def examine(loaded: Loaded, env: Mapping[str, str], timeout_s: float) -> list[Finding]:
    """Everything, in the order in which a person would look; `timeout_s` bounds each answer that is awaited."""
    settings = effective(loaded.settings, env)
    origin = "no file: defaults and environment" if loaded.path is None else str(loaded.path)
    findings = [Finding("ok", "configuration", origin)]
    findings += [Finding("warn", "configuration", warning) for warning in loaded.warnings]
    findings += client_addresses(env, settings.server)
    findings += ground(settings)
    findings += [Finding("fail", "clients and keys", sentence) for sentence in disagreements(settings)]
    probes: list[Probe] = []
    if settings.demo:
        findings.append(
            Finding("info", "providers", "none: a fake provider answers", "set OPENAI_API_KEY or ANTHROPIC_API_KEY")
        )
    else:
        probes = await asyncio.gather(
            *(probe_provider(name, one, timeout_s) for name, one in settings.providers.items()),
            *(probe_worker(name, one, timeout_s) for name, one in settings.workers.items()),
        )
    findings += own_address(settings)
    findings += chain.from_iterable(probe.findings for probe in probes)
    findings.append(clock([probe for probe in probes if probe.skew_s is not None]))
    findings += await running(settings.server, timeout_s)
    return findings
