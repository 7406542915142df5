"""No float in money code: over the syntax tree, for files of money as a whole and for every expression about money."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Files where nothing may be a float but seconds: names that end in `_s`.
MONEY = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [
        *(ROOT / "gateway/state").glob("*.py"),
        *(ROOT / "gateway" / name for name in ("rates.py", "periods.py", "rebuild.py", "prices.py")),
        *(ROOT / "policies" / name for name in ("budget.py", "quota.py")),
    ]
    if path.name != "seconds.py"
)
#: A name that says money.
MONEY_NAME = re.compile(r"(^|_)(pusd|usd|cost|charge|budget|spent)(_|$)")
#: Budgets of retries are no money.
NO_MONEY = {"budget_percent", "budget_reserve", "RetryBudget", "retry_budget"}
EXACT = {"Decimal", "Fraction"}
FLOAT_CALLS = {"float", "round", "fsum", "fmean", "seconds_of"}


def is_float(node: ast.AST) -> bool:
    """A float constant, a true division (but of Decimals or Fractions), or a call that gives a float."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float)
    if isinstance(node, ast.BinOp | ast.AugAssign):
        return isinstance(node.op, ast.Div) and not names(node) & EXACT
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        return name in FLOAT_CALLS
    return False


def names(node: ast.AST) -> set[str]:
    return {
        name
        for child in ast.walk(node)
        for name in (getattr(child, "id", None), getattr(child, "attr", None))
        if isinstance(name, str)
    }


def speaks_of_money(*nodes: ast.AST | None) -> bool:
    return any(MONEY_NAME.search(name) for node in nodes if node is not None for name in names(node) - NO_MONEY)


def floats_of_money_files(tree: ast.Module) -> list[int]:
    """Lines with a float, except where seconds are annotated or made of nanoseconds for a field or name `..._s`."""
    seconds: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg):
            name = node.arg if isinstance(node, ast.arg) else min(names(node.target) - {"self"}, default="")
            if name.endswith("_s") and node.annotation is not None:
                seconds |= set(ast.walk(node.annotation))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for argument, default in zip(node.args.args[::-1], node.args.defaults[::-1], strict=False):
                if argument.arg.endswith("_s"):
                    seconds |= set(ast.walk(default))
    bad = []
    for node in ast.walk(tree):
        if node in seconds:
            continue
        if isinstance(node, ast.Name) and node.id == "float":
            bad.append(node.lineno)
        elif is_float(node) and getattr(getattr(node, "func", None), "id", "") != "seconds_of":
            bad.append(node.lineno)  # type: ignore[attr-defined]  # constants, operations and calls have lines
    return bad


def floats_near_money(tree: ast.Module) -> list[int]:
    """Lines where money becomes a float, or a float money."""
    bad = set()
    for node in ast.walk(tree):
        value = getattr(node, "value", None)
        has_float = isinstance(value, ast.AST) and any(map(is_float, ast.walk(value)))
        if isinstance(node, ast.BinOp | ast.AugAssign | ast.Call | ast.Compare):
            direct = [node, *ast.iter_child_nodes(node)]
            if any(map(is_float, direct)) and speaks_of_money(node):
                bad.add(node.lineno)
        if isinstance(node, ast.Assign) and has_float and speaks_of_money(*node.targets):
            bad.add(node.lineno)
        if isinstance(node, ast.AnnAssign | ast.AugAssign) and has_float and speaks_of_money(node.target):
            bad.add(node.lineno)
        if isinstance(node, ast.keyword) and has_float and MONEY_NAME.search(node.arg or ""):
            bad.add(node.value.lineno)
    return sorted(bad)


@pytest.mark.parametrize("name", MONEY)
def test_no_float_in_files_of_money(name: str) -> None:
    assert floats_of_money_files(ast.parse((ROOT / name).read_text())) == []


@pytest.mark.parametrize("package", ["gateway", "policies"])
def test_money_is_no_float_anywhere(package: str) -> None:
    bad = {
        path.relative_to(ROOT).as_posix(): lines
        for path in (ROOT / package).rglob("*.py")
        if (lines := floats_near_money(ast.parse(path.read_text())))
    }
    assert bad == {}


@pytest.mark.parametrize(
    "line",
    [
        "cost_pusd = 0.5",
        "charge = cost_pusd / 2",
        "row.cost_pusd /= 3",
        "total = sum(float(row.charge_pusd) for row in rows)",
        "row = Row(cost_pusd=price.low * 0.15)",
        "spent = usage.tokens * 0.15 + 1",
        "left_usd = round(budget)",
        "def f(cost_pusd: int) -> int:\n    return cost_pusd * 1.5",
    ],
)
def test_the_refusal_bites(line: str) -> None:
    tree = ast.parse(line)
    assert floats_of_money_files(tree)
    assert floats_near_money(tree)


def test_seconds_may_be_floats() -> None:
    allowed = "def reserve(hold: str, ttl_s: float = 1.5) -> None:\n    wait_s: float | None = seconds_of(ns)"
    assert floats_of_money_files(ast.parse(allowed)) == []
    assert floats_of_money_files(ast.parse("capacity: float = 3")) == [1]
