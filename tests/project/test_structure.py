"""The shape of the code: who may import whom, and that docs and tables keep their promises."""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gateway", "policies")
#: What a policy may know of the gateway.
ALLOWED_TO_POLICIES = {
    "gateway.policy", "gateway.pools", "gateway.state.plan", "gateway.routing.told",
    "gateway.scheduler", "gateway.call", "gateway.errors", "gateway.events", "gateway.prices", "gateway.state.store",
    "gateway.clients", "gateway.scopes", "gateway.usage", "gateway.targets", "gateway.directory", "gateway.rates",
    "gateway.periods", "gateway.ratelimit", "gateway.clock", "gateway.metrics", "gateway.routes", "gateway.wishes",
    "gateway.interest", "gateway.answers", "gateway.heartbeat",
    "gateway.reshape", "gateway.recording", "gateway.results", "gateway.abilities", "gateway.peaks",
    "gateway.records.rows", "gateway.batches", "gateway.merging", "gateway.stated",
    "gateway.question", "gateway.likeness", "gateway.embedding", "gateway.alike",
}  # fmt: skip


def modules() -> dict[str, ast.Module]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text())
    return found


def runtime_imports(tree: ast.Module, known: set[str]) -> set[str]:
    """Imports at module level that really happen: not those for type checkers. A module imported out of its package
    is that module."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & known) or {node.module}
    return found


def test_no_import_cycle() -> None:
    trees = modules()
    graph = {
        name: {one for one in runtime_imports(tree, set(trees)) if one in trees and one != name}
        for name, tree in trees.items()
    }
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            raise AssertionError("import cycle: " + " > ".join([*way[way.index(name) :], name]))
        if name in done:
            return
        for other in sorted(graph[name]):
            visit(other, [*way, name])
        done.add(name)

    for name in sorted(graph):
        visit(name, [])


def test_policies_know_only_the_contract() -> None:
    for name, tree in modules().items():
        if not name.startswith("policies."):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("gateway", "policies")):
                assert node.module in ALLOWED_TO_POLICIES, f"{name} imports {node.module}"


def test_gateway_names_no_policy() -> None:
    for name, tree in modules().items():
        if name.startswith("gateway"):
            for node in ast.walk(tree):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                    assert not any(one.split(".")[0] == "policies" for one in names), f"{name} imports a policy"


def test_no_room_called_utils() -> None:
    words = re.compile(r"(utils?|helpers?|common|manager|handlers?)$")
    bad = [name for name in modules() if words.search(name.rpartition(".")[2])]
    assert not bad


def test_nothing_blocks_or_uses_base_http_middleware() -> None:
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                assert node.id != "BaseHTTPMiddleware", name


def coverage_rows() -> list[list[str]]:
    with (ROOT / "docs" / "coverage.tsv").open() as file:
        return [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row][1:]


def test_every_covering_test_exists() -> None:
    names: dict[str, set[str]] = {}
    for row in coverage_rows():
        assert len(row) == 4, row
        for test in row[3].split():
            path, _, function = test.partition("::")
            if path not in names:
                file = ROOT / path
                assert file.exists(), f"{row[2]}: no file {path}"
                names[path] = {
                    node.name
                    for node in ast.walk(ast.parse(file.read_text()))
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                }
            last = function.rpartition("::")[2].partition("[")[0]
            assert not function or last in names[path], f"{row[2]}: no test {test}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "twins").glob("*.toml")), ids=lambda path: path.stem)
def test_every_twin_still_fits_its_source(path: Path) -> None:
    import tomllib

    for twin in tomllib.loads(path.read_text())["twin"]:
        source = (ROOT / twin["file"]).read_text()
        assert source.count(twin["find"]) == 1, f"{twin['guarantee']}: its text is not in {twin['file']} exactly once"
        assert (ROOT / twin["test"].partition("::")[0]).exists(), twin["test"]
