"""What Tidegate itself says of the calls it got: the policies that each went through, the ledger's rows."""

from __future__ import annotations

import json
import re
import subprocess
import time
from urllib.request import ProxyHandler, Request, build_opener

from loadtests.bench import answers
from loadtests.bench.errors import BenchError
from loadtests.bench.load import Sent
from loadtests.bench.results import Proof
from loadtests.bench.systems.tidegate import ADMIN_KEY, COST_USD, Tidegate

FLUSH_S = 30.0  # longest wait for the ledger's writer to have written everything


def every_policy_ran(system: Tidegate) -> list[Proof]:
    """One curl: each policy of the list in force saw exactly one more call, and its cost and its limits came back."""
    before, rows = policy_calls(system), ledger_calls(system)
    answer = answers.curl(system)
    after = policy_calls(system)
    ran = sorted(name for name in after if after[name] == before.get(name, 0) + 1)
    wanted = sorted(system.policies())
    cost = answer.headers.get("x-tidegate-cost", "none")
    limits = answer.headers.get("x-ratelimit-limit-requests", "none")
    row = _settled_calls(system, rows + 1)
    return [
        Proof("one curl goes through every policy of the default list", ran == wanted, ", ".join(ran) or "none"),
        Proof("the curl's answer tells its cost", cost == COST_USD, f"x-tidegate-cost: {cost}"),
        Proof("the curl's answer tells its limit", limits != "none", f"x-ratelimit-limit-requests: {limits}"),
        Proof("the curl's call has its row in the ledger", row == rows + 1, f"{row - rows} row"),
    ]


def a_row_for_each_call(system: Tidegate, sent: Sent, rows_before: int) -> Proof:
    """The ledger grew by what the generators saw answered, and at most by what their ends cut off besides."""
    rows = _settled_calls(system, rows_before + sent.completed) - rows_before
    holds = sent.completed <= rows <= sent.completed + sent.cut
    seen = f"{rows:,} rows for {sent.completed:,} answered calls and at most {sent.cut:,} cut off at the ends of runs"
    return Proof("the ledger has a row for each call", holds, seen)


def policy_calls(system: Tidegate) -> dict[str, int]:
    """Calls that each policy saw since the start, from the metrics page."""
    request = Request(f"http://127.0.0.1:{system.port}/metrics")
    request.add_header("Authorization", f"Bearer {ADMIN_KEY}")
    request.add_header("Accept", "text/plain")
    with build_opener(ProxyHandler({})).open(request, timeout=30) as answer:
        page = answer.read().decode()
    found = re.findall(r'^tidegate_policy_calls_total\{policy="([^"]+)"\} ([0-9.e+]+)$', page, re.MULTILINE)
    return {name: int(float(count)) for name, count in found}


def ledger_calls(system: Tidegate) -> int:
    """Calls in the ledger, by the command line that an operator uses."""
    command = [*system.program(), "usage", "--json", "--by", "client", "--config", str(system.file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise BenchError(f"tidegate usage failed: {done.stderr or done.stdout}")
    return sum(int(row["calls"]) for row in json.loads(done.stdout))


def _settled_calls(system: Tidegate, wanted: int) -> int:
    """Calls in the ledger, once there are as many as wanted and no more come (or the wait is over)."""
    deadline, last = time.monotonic() + FLUSH_S, -1
    while time.monotonic() < deadline:
        rows = ledger_calls(system)
        if rows >= wanted and rows == last:
            break
        last = rows
        time.sleep(0.2)
    return rows
