"""check, config show, doctor, demo as a new user meets them: flags, plain words, a running gateway found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

WORKER_DOWN = """
[workers.off]
base_url = "http://127.0.0.1:1"
[clients.a]
[[clients.a.keys]]
secret = "tg-0123456789abcdef"
"""


def test_flags_are_the_same_everywhere(tmp_path: Path, cli: Any) -> None:
    given = ("--listen", "127.0.0.1:8099", "--data-dir", str(tmp_path / "d"), "--set", "server.drain_s=7")
    shown = json.loads(cli("config", "show", *given, "--json").stdout)["settings"]
    assert shown["server.listen"] == {"value": "127.0.0.1:8099", "origin": "flag:--listen"}
    assert shown["server.data_dir"]["origin"] == "flag:--data-dir"
    assert shown["server.drain_s"] == {"value": 7.0, "origin": "flag:--set server.drain_s"}
    assert cli("check", *given).returncode == 0
    assert str(tmp_path / "d") in cli("doctor", *given).stdout
    for command in (("check",), ("config", "show"), ("doctor",), ("serve",)):
        done = cli(*command, "--set", "server.drain_s=abc")
        assert done.returncode == 1
        assert "--> flag:--set server.drain_s" in done.stderr
        assert cli(*command, "--set", "server.drain_s").returncode == 2


@pytest.mark.parametrize(
    ("config", "said", "unsaid"),
    [
        ('policies = ["identity", "mypkg.mod:Thing"]', ["module 'mypkg' of", "working directory"], ["package.mod"]),
        ('policies = ["identity", "mine:Other"]', ["module 'mine' has no class 'Other'"], []),
        ('policies = ["identity", "mine:NotPol"]', ["'mine:NotPol' is no policy", "gateway.policy.Policy"], []),
        ('policies = ["identity", "mine"]', ['write "mine:ClassName"'], ["did you mean"]),
        ('policies = ["identity", "access", "identity"]', ["'identity' stands twice"], ["must come after"]),
        ("[server]\nlisten = 127.0.0.1:8080", ['text needs quotes: listen = "127.0.0.1:8080"'], []),
        ("[clients.a]\nsecret = hush-hush-hush", ["text needs quotes"], ["hush"]),
        ('[providers.a]\nkind = "openai"\napi_key = sk-hush"\n', ["not valid TOML"], ["hush"]),
        ('[server]\nlisten = ":1"\n[server]\n', ["[server] twice"], ["('server',)"]),
        ('[policy.quota]\nrequests = 5\n[policy.budget]\nwarn_percent = "x"', ["a list, such as", "whole number"], []),
        ('[policy.quota]\ntokens = ["often"]', ["'often' is not a rate"], ["Value error", "expected: "]),
        ('[policy.queue]\nmax_waiting = -1\nnothing = 2', ["a number at least 1", "unknown key 'nothing'"], ["Input"]),
        (
            '[clients.a]\ntier = "x"\n[[clients.a.keys]]\nsecret = "${NOT_SET_X}"\n[models.m]\ntargets = ["b/c"]\n'
            '[policy.budget]\nwarn_percent = 300',
            ["NOT_SET_X is not set", "unknown tier 'x'", "unknown provider 'b'", "at most 100", "4 problems"],
            [],
        ),
        ('[server]\nlisten = "${NOT_SET_X}"\nlistn = 1\n[models.m]\ntargets = ["b/c"]', ["3 problems"], []),
    ],
)  # fmt: skip
def test_every_mistake_is_told_in_plain_words(
    tmp_path: Path, cli: Any, config: str, said: list[str], unsaid: list[str]
) -> None:
    (tmp_path / "gateway.toml").write_text(config)
    (tmp_path / "mine.py").write_text("class NotPol:\n    pass\n")
    done = cli("check")
    assert done.returncode == 1
    assert [text for text in said if text not in done.stderr] == [], done.stderr
    assert [text for text in unsaid if text in done.stderr] == [], done.stderr


def test_a_data_directory_that_can_not_be(cli: Any) -> None:
    done = cli("serve", "--listen", "127.0.0.1:0", "--data-dir", "/proc/x")
    assert done.returncode == 1
    assert "data directory /proc/x can't be used" in done.stderr
    assert "Errno" not in done.stderr
    assert "/proc/x can't be made" in cli("doctor", "--data-dir", "/proc/x").stdout


def test_doctor_finds_the_gateway_of_the_data_directory(start: Any) -> None:
    """It listens where a flag said, not where the file says."""
    server = start('[server]\nlisten = "127.0.0.1:1"\n')

    def found() -> list[tuple[str, str]]:
        report = json.loads(server.command("doctor", "--json", "-c", str(server.config)).stdout)
        return [(one["status"], one["message"]) for one in report["findings"] if "running" in one["subject"]]

    running = f"process {server.process.pid} on {server.folder / 'data'}, at {server.address}"
    assert found() == [("ok", running), ("ok", f"{server.address} is ready")]
    good = server.config.read_text()
    server.config.write_text("[server]\nlistn = 1\n")
    assert server.command("reload", "--data-dir", str(server.folder / "data")).returncode == 1
    server.config.write_text(good)
    assert [one for one in found() if one[0] == "warn" and "reload was refused" in one[1]]
    assert server.stop() == 0
    assert found() == [("info", f"none on {server.folder / 'data'}")]


def test_check_names_no_address_that_does_not_exist(cli: Any) -> None:
    assert "demo.invalid" not in cli("check").stdout + cli("check", "--json").stdout


def test_refusals_speak_of_workers_and_of_json(start: Any) -> None:
    server = start(WORKER_DOWN)
    key = "tg-0123456789abcdef"
    status, _, body = server.request("POST", "/workers/off/x", {}, key=key)
    assert status == 503
    assert json.loads(body)["error"].startswith("Worker 'off' can't be reached")
    for field, value in (("model", 5), ("max_tokens", "5"), ("stream", "yes"), ("messages", 7)):
        asked = {"model": "m", "messages": [{"role": "user", "content": "x"}], field: value}
        _, _, body = server.request("POST", "/v1/chat/completions", asked, key=key)
        message = json.loads(body)["error"]["message"]
        assert not {"'str'", "'int'", "'bool'", "'array'"} & set(message.replace(",", " ").replace(".", " ").split()), (
            message
        )


def test_the_demo_can_be_piped(cli: Any) -> None:
    done = cli("demo")
    assert done.returncode == 0, done.stderr
    assert "1 calls" not in done.stdout
    body = [line for line in done.stdout.splitlines() if '-d \'{"model"' in line]
    assert len(body) == 1
    assert body[0].endswith("}'")
