"""The pages name every fault, setting of a rule, and option: documentation is a contract."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.demo import plan, script
from gateway.demo.routes import POSTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/fake-provider.md").read_text()
LOADTESTS = (ROOT / "docs/loadtests.md").read_text()


@pytest.mark.parametrize("key", sorted({*script.KEYS, *script.LIMITS}))
def test_every_fault_is_described(key: str) -> None:
    assert re.search(rf"^\| .*`{key.replace('_', '-')}[`=]", PAGE, re.MULTILINE)


@pytest.mark.parametrize("key", sorted(plan.KEYS))
def test_every_key_of_a_rule_is_described(key: str) -> None:
    assert f"`{key}`" in PAGE or f'"{key}"' in PAGE


@pytest.mark.parametrize("path", sorted(POSTS))
def test_every_route_is_described(path: str) -> None:
    assert path in PAGE or f"/{path.rsplit('/', 1)[1]}" in PAGE


def test_every_option_of_the_load_tests_is_described() -> None:
    sources = [(ROOT / "loadtests" / name).read_text() for name in ("locustfile.py", "shapes.py")]
    options = [option for source in sources for option in re.findall(r'add_argument\(\s*"(--[a-z-]+)"', source)]
    assert len(options) >= 10
    assert [option for option in options if f"`{option}`" not in LOADTESTS] == []
