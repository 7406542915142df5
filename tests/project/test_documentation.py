"""What the pages promise to list is all there: error codes, pages, commands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from gateway.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
#: Refusals of the wire take their code as the second argument.
WIRE = {"Refusal": 1, "BodyRefused": 1, "BadFraming": 1, "BadTarget": 1}


def codes_in(tree: ast.AST) -> Iterator[str]:
    """Every machine-readable code that an error is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (_text(one.value) for one in node.keywords if one.arg == "code")
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in WIRE and len(node.args) > WIRE[name]:
                yield _text(node.args[WIRE[name]])
        elif isinstance(node, ast.ClassDef):
            for line in node.body:
                target = line.target if isinstance(line, ast.AnnAssign) else None
                target = line.targets[0] if isinstance(line, ast.Assign) else target
                if (
                    isinstance(target, ast.Name)
                    and target.id == "code"
                    and isinstance(line, ast.Assign | ast.AnnAssign)
                ):
                    yield _text(line.value)
        elif isinstance(node, ast.FunctionDef):
            names = [*node.args.args, *node.args.kwonlyargs]
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            pairs = zip(names[len(names) - len(defaults) :], defaults, strict=True)
            yield from (_text(value) for name, value in pairs if name.arg == "code")


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def sources() -> Iterator[Path]:
    """Of the gateway itself: the fake provider has a provider's codes."""
    for folder in ("gateway", "policies"):
        for path in (ROOT / folder).rglob("*.py"):
            if "demo" not in path.relative_to(ROOT).parts:
                yield path


def test_every_error_code_is_on_the_page_of_errors() -> None:
    raised = {code for path in sources() for code in codes_in(ast.parse(path.read_text())) if code}
    assert {"invalid_api_key", "queue_full", "ambiguous_length", "ledger_unavailable"} <= raised
    table = [line for line in (ROOT / "docs/errors.md").read_text().splitlines() if re.match(r"\| \d{3}", line)]
    told = {code for line in table for code in re.findall(r"`([a-z_]+)`", line.split("|")[2])}
    assert raised - told == set(), "not on the page"
    assert told - raised == set(), "on the page only"


def test_every_page_and_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert {name for name in pages if f"docs/{name}" not in readme} == set()
    commands = readme[readme.index("## Commands") : readme.index("## Pages")]
    assert {name for name in COMMANDS if f"`{name}" not in commands and f"tidegate {name}" not in commands} == set()
