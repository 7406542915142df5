"""`tidegate status` on terminals of any size: what matters is there, and nothing of it is cut off."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from gateway.cli.status import picture


def part(available: int, capacity: int) -> dict[str, int]:
    return {"available": available, "capacity": capacity, "percentage": 100 * available // capacity}


def pool(name: str, available: int, **more: Any) -> dict[str, Any]:
    windows = [{"rate": "10737418240/30 days", "remaining": 10_737_418_240}]
    row = {"name": name, "unit": "characters", "shared": part(available, 900_000), "reserved": part(100_000, 100_000)}
    return {**row, "dedicated": {"acme": part(2000, 2000)}, "windows": windows, "waiting": 0, "closed_ms": 0, **more}


def page(waiting: int) -> dict[str, Any]:
    view = {"client": "acme", "urgency": "normal", "priority": 40, "waited_ms": 59_900, "estimate_ms": 59_900}
    view |= {"starved": True, "limit": "queue provider fake"}
    views = [{**view, "id": f"01a231ff-8971-7ddc-a1b8-{n:012}", "position": n} for n in range(waiting)]
    level = {"depth": 1000, "oldest_ms": 100_000, "starved": 7}
    names = ("immediate", "fast", "normal", "batch", "deferred")
    queue = {"executing": 20, "total": waiting, "waiting": views, "levels": dict.fromkeys(names, level)}
    pools = [pool(f"whole-{n}", 900_000) for n in range(10)]
    pools += [pool("anthropic-claude", 1), pool("shut", 900_000, closed_ms=5000)]
    providers = [{"provider": f"provider-{n}", "model": "model", "state": "closed"} for n in range(4)]
    return {"reasons": {}, "pid": 1, "pools": pools, "queue": queue, "providers": providers}


def shown(width: int, height: int, waiting: int) -> list[str]:
    text = StringIO()
    console = Console(width=width, height=height, file=text, color_system=None)
    console.print(picture(page(waiting), width, height))
    return text.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (119, 59), (160, 24), (200, 100)])
@pytest.mark.parametrize("waiting", [0, 2, 1000])
def test_all_that_matters_has_room(width: int, height: int, waiting: int) -> None:
    lines = shown(width, height, waiting)
    text = "\n".join(lines)
    assert len(lines) <= height
    assert "…" not in text
    for word in ("immediate", "deferred", "anthropic-claude", "1/900,000", "closed 5 s", "provider-0"):
        assert word in text
    assert ("01a231ff-8971-7ddc-a1b8-000000000000" in text) == (waiting > 0)


def test_without_a_height_all_is_there() -> None:
    text = "\n".join(shown(160, 0, 1000))
    assert all(word in text for word in ("whole-9", "provider-3", "-000000000014", "queue provider fake"))
