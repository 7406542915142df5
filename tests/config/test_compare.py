"""What a reload changes, and what only a restart can."""

from __future__ import annotations

from pathlib import Path

from gateway.config import changes, needs_restart
from gateway.config.compare import NEEDS_RESTART
from gateway.config.display import leaves
from gateway.config.problems import dotted
from gateway.config.settings import Settings

OLD = """
[server]
listen = "127.0.0.1:1"
[providers.a]
kind = "openai"
api_key = "one"
[models."gpt-4.1"]
targets = ["a/x"]
[clients.acme]
budget = { day_usd = 1 }
"""


def test_nothing_changes_by_reading_again(loaded):
    assert changes(loaded(OLD).settings, loaded(OLD).settings) == []


def test_changes_are_named_by_dotted_key(loaded):
    new = OLD.replace('"one"', '"two"').replace("127.0.0.1:1", "127.0.0.1:2").replace('"a/x"', '"a/y"')
    new = new.replace("[clients.acme]\nbudget = { day_usd = 1 }", "[clients.other]") + '[policy.access]\nmode="observe"'
    found = changes(loaded(OLD).settings, loaded(new).settings)
    assert found == [
        "clients.acme",
        "clients.other",
        'models."gpt-4.1".targets',
        "policy.access",
        "providers.a.api_key",
        "server.listen",
    ]
    assert needs_restart(found) == ["server.listen"]


def test_what_needs_a_restart_is_a_setting():
    known = {dotted(path) for path, _ in leaves(Settings().model_dump(by_alias=True))}
    assert known >= NEEDS_RESTART
    for named in ("server.listen", "server.data_dir", "server.workers", "server.protocol", "records.url"):
        assert named in NEEDS_RESTART


def test_what_needs_a_restart_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert not {key for key in NEEDS_RESTART if f"`{key}`" not in page}
