"""One run from start to end: systems started, proved, measured in turn, soaked, stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from loadtests.bench import books, goals, machine, proofs
from loadtests.bench.cases import SMALL_32, Case, Plan
from loadtests.bench.errors import BenchError
from loadtests.bench.load import NOISY, Load, Sample
from loadtests.bench.responder import Responder
from loadtests.bench.results import CAPACITY, DIRECT, Facts, Results
from loadtests.bench.systems import COMPARED, SYSTEMS
from loadtests.bench.systems.base import System
from loadtests.bench.systems.tidegate import Tidegate
from loadtests.bench.target import Target

IDLE_S = 1.0  # from the first answer to the reading of idle memory


class Run:
    """Everything of a run lies below `build`/bench; the systems run at once, idle but for the one being measured."""

    def __init__(self, plan: Plan, names: list[str], build: Path) -> None:
        self.plan = plan
        self.names = names
        self.build = build
        self.folder = build / "bench" / "run"
        self.results = Results(machine.describe(), {**asdict(plan), "cases": [case.name for case in plan.cases]})

    def measure(self) -> Results:
        machine.stand_aside()
        shutil.rmtree(self.folder, ignore_errors=True)
        with ExitStack() as stack:
            responder = Responder(self.folder, self.build / "bench")
            stack.callback(responder.stop)
            load = Load(responder, self.build / "bench", self.folder)
            systems = list(self._all_started(stack, responder))
            self.results.proofs += [proofs.answers_whole(system) for system in systems]
            ours = next((system for system in systems if isinstance(system, Tidegate)), None)
            rows_before = 0
            if ours is not None:
                self.results.proofs += books.every_policy_ran(ours)
                rows_before = books.ledger_calls(ours)
            self._rounds(load, responder, systems)
            for system in systems:
                self.results.systems[system.name].loaded_mb = system.running.rss_mb()
            if ours is not None:
                self._soak(load, ours)
                self.results.proofs.append(books.a_row_for_each_call(ours, load.sent[ours.name], rows_before))
                self.results.proofs.append(proofs.hidden_usage(self.results, ours.name))
                self._clients(load, responder)
        self.results.proofs += proofs.complete(self.results)
        self.results.goals = goals.judge(self.results)
        return self.results

    def _all_started(self, stack: ExitStack, responder: Responder) -> Iterator[System]:
        for name in self.names:
            try:
                yield self._started(stack, name, responder)
            except BenchError as error:
                if name in COMPARED:
                    raise
                del self.results.systems[name]
                say(f"{name} is left out: {error}")

    def _started(self, stack: ExitStack, name: str, responder: Responder) -> System:
        """The system, running; each start that is timed is a first one, with nothing left of an earlier."""
        system = SYSTEMS[name](self.folder / name, self.build, responder.port)
        facts = self.results.systems[name] = Facts(system.what, system.settings())
        system.install()
        stack.callback(system.stop)
        for left in reversed(range(self.plan.starts)):
            shutil.rmtree(system.folder)
            system.folder.mkdir()
            system.configure()
            facts.ready_s.append(system.start())
            if left:
                system.stop()
        time.sleep(IDLE_S)
        facts.idle_mb = system.running.rss_mb()
        say(f"{name} is ready: {facts.ready_s[-1]:.2f} s, {facts.idle_mb:.0f} MB")
        return system

    def _rounds(self, load: Load, responder: Responder, systems: list[System]) -> None:
        """Case by case, one system after the other, and so again for each round: what disturbs one disturbs all."""
        targets = [_target(system) for system in systems]
        direct = Target(DIRECT, responder.port, responder.process, load_core=machine.LOAD_CORE)
        alone = Target(CAPACITY, responder.port, responder.process, load_core=machine.SYSTEM_CORE)
        for number in range(1, self.plan.rounds + 1):
            for case in self.plan.cases:
                besides = [direct, alone] if case.streams else [alone] if case.headline else []
                for target in (*targets, *besides):
                    self.results.samples.append(self._quietest(load, target, case))
            say(f"round {number} of {self.plan.rounds} done")

    def _quietest(self, load: Load, target: Target, case: Case) -> Sample:
        """A sample; of a headline case, taken again if other programs used the system's core meanwhile."""
        best = load.run(target, case, self.plan.warm_s, self.plan.window(case))
        for _ in range(self.plan.retries if case.headline else 0):
            if best.figures["foreign"] <= NOISY or target.load_core == machine.SYSTEM_CORE:
                break
            again = load.run(target, case, self.plan.warm_s, self.plan.window(case))
            best = min(best, again, key=lambda sample: sample.figures["foreign"])
        return best

    def _soak(self, load: Load, system: System) -> None:
        """Memory after each tenth of many requests."""
        target, step = _target(system), self.plan.soak_requests // 10
        failed = 0
        for tenth in range(1, 11):
            failed += load.send(target, step)
            self.results.soak.append((tenth * step, system.running.rss_mb()))
        self.results.proofs.append(proofs.unfailing(self.plan.soak_requests, failed))
        say(f"soak of {self.plan.soak_requests:,} requests done")

    def _clients(self, load: Load, responder: Responder) -> None:
        """The cost of a request with few and with many clients configured, their keys used in turn."""
        case, plan = SMALL_32, self.plan
        with ExitStack() as stack:
            targets = [stack.enter_context(self._with_clients(n, responder)) for n in plan.clients]
            for count, target in zip(plan.clients, targets, strict=True):
                before = target.process.cpu_s()
                load.send(target, count)  # what is made once for each client is made
                self.results.clients_first[count] = (target.process.cpu_s() - before) / count * 1e6
            for _ in range(plan.client_rounds):
                for count, target in zip(plan.clients, targets, strict=True):
                    sample = load.run(target, case, plan.warm_s, plan.window(case))
                    self.results.clients.setdefault(count, []).append(sample.figures["cpu_us"])
        say("few and many clients done")

    @contextmanager
    def _with_clients(self, count: int, responder: Responder) -> Iterator[Target]:
        system = Tidegate(self.folder / f"clients-{count}", self.build, responder.port)
        system.clients = count
        system.install()
        system.configure()
        self.results.clients_ready_s[count] = system.start()
        try:
            yield Target(f"{count} clients", system.port, system.running, system.headers(), system.keys())
        finally:
            system.stop()


def _target(system: System) -> Target:
    return Target(system.name, system.port, system.running, system.headers(), load_core=machine.LOAD_CORE)


def say(text: str) -> None:
    print(text, flush=True)
