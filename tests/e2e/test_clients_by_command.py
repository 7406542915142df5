"""Clients, keys and the pepper by command, while a gateway runs and while none does; what keeps one from starting."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]}
GOLD = "[tiers.gold]\npriority = 25\n"


def refused_start(server: Any, **env: str) -> str:
    """The gateway is started again, must refuse, and says why."""
    done = subprocess.run(
        server.command_line, env={**server.env, **env}, cwd=server.folder, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return str(done.stderr)


def failed(server: Any, *arguments: str, code: int = 1) -> str:
    done = server.command(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return str(done.stdout + done.stderr)


def status(server: Any, key: str) -> int:
    return int(server.request("POST", "/v1/chat/completions", CHAT, key=key)[0])


def test_a_tier_is_checked_while_no_gateway_runs(start: Any) -> None:
    server = start()
    assert server.stop() == 0
    said = failed(server, "clients", "create", "bob", "--tier", "gold")
    assert "there is no tier 'gold'; gateway.toml has basic, enterprise, premium, standard" in said
    server.config.write_text("[clients.filed]\n")
    assert "client 'filed' exists already" in failed(server, "clients", "create", "filed")
    listed = {one["id"]: one["source"] for one in server.tidegate("clients", "list", "--json")}
    assert listed == {"admin": "database", "default": "database", "filed": "file"}


def test_a_tier_that_the_file_lost_is_told_and_mended(start: Any) -> None:
    server = start(GOLD)
    server.tidegate("clients", "create", "bob", "--tier", "gold", "--json")
    secret = server.tidegate("keys", "create", "bob", "--json")["secret"]
    server.config.write_text("")
    lost = "client 'bob' in the database has tier 'gold', which gateway.toml does not define"
    for running in (True, False):
        if running:
            assert lost in failed(server, "reload")
            assert status(server, secret) == 200
        else:
            assert server.stop() == 0
            assert lost in refused_start(server)
        assert lost in failed(server, "check")
        assert lost in failed(server, "doctor")
        report = server.command("check", "--json")
        assert lost in json.loads(report.stdout)["problems"][0]["message"]
    assert "tidegate clients edit bob --tier basic" in refused_start(server)
    server.tidegate("clients", "edit", "bob", "--tier", "basic", "--json")
    assert server.command("check").returncode == 0
    server.restart_stopped()
    assert status(server, secret) == 200


def test_a_client_is_edited_rotated_revoked_and_removed(start: Any) -> None:
    server = start()
    server.tidegate("clients", "create", "acme", "--json")
    first, second = (server.tidegate("keys", "create", "acme", "--json") for _ in range(2))
    assert status(server, first["secret"]) == 200
    server.tidegate("clients", "edit", "acme", "--model", "demo-large", "--json")
    assert status(server, first["secret"]) == 403
    server.tidegate("clients", "edit", "acme", "--model", "*", "--requests", "1/day", "--tier", "premium", "--json")
    (acme,) = [one for one in server.tidegate("clients", "list", "--json") if one["id"] == "acme"]
    assert (acme["tier"], acme["scope"]["models"], acme["quota"]["requests"]) == ("premium", None, ["1/day"])
    assert [status(server, first["secret"]) for _ in range(2)][-1] == 429
    server.tidegate("clients", "edit", "acme", "--requests", "none", "--json")
    new = server.tidegate("clients", "rotate", "acme", "--json")
    assert len(new) == 2
    assert [status(server, one["secret"]) for one in (first, second, *new)] == [401, 401, 200, 200]
    assert "there is no client 'nobody'" in failed(server, "clients", "revoke", "nobody")
    done = server.command("clients", "revoke", "acme")
    assert (done.returncode, done.stdout.strip()) == (0, "2 keys of client acme are revoked")
    assert [status(server, one["secret"]) for one in new] == [401, 401]
    again = server.tidegate("keys", "create", "acme", "--json")
    server.tidegate("clients", "remove", "acme", "--json")
    assert status(server, again["secret"]) == 401
    assert "there is no client 'acme'" in failed(server, "keys", "create", "acme")
    server.tidegate("clients", "create", "acme", "--json")
    assert status(server, again["secret"]) == 401  # a new client of that name does not get the old one's keys
    server.restart()
    assert status(server, again["secret"]) == 401


def test_an_id_in_both_places_has_a_way_out(start: Any) -> None:
    server = start()
    assert status(server, "tg-test-client-key") == 200
    assert server.stop() == 0
    server.config.write_text('[clients.default]\ntier = "premium"\n')
    both = "client 'default' stands in gateway.toml and in the database"
    for said in (refused_start(server), failed(server, "check"), failed(server, "doctor")):
        assert both in said
        assert "tidegate clients remove default" in said
    server.tidegate("clients", "remove", "default", "--keep-keys", "--json")
    server.restart_stopped()
    assert status(server, "tg-test-client-key") == 200
    assert [one["tier"] for one in server.tidegate("clients", "list", "--json") if one["id"] == "default"] == [
        "premium"
    ]
    for verb in ("edit", "remove"):
        more = ("--tier", "basic") if verb == "edit" else ()
        assert "client 'default' stands in gateway.toml" in failed(server, "clients", verb, "default", *more)


def test_keys_of_the_file_are_told_when_a_client_is_revoked(start: Any) -> None:
    server = start('[clients.a]\n[[clients.a.keys]]\nid = "a-key"\nsecret = "tg-a-key-of-the-file"\n')
    made = server.tidegate("keys", "create", "a", "--json")
    assert "a-key" in failed(server, "clients", "revoke", "a")
    assert status(server, made["secret"]) == 401
    assert status(server, "tg-a-key-of-the-file") == 200


def test_a_missing_or_other_pepper_stops_the_start(start: Any) -> None:
    server = start()
    assert server.stop() == 0
    pepper = server.folder / "data" / "pepper"
    kept = pepper.read_text()
    pepper.unlink()
    said = refused_start(server)
    assert f"the pepper {pepper} is missing" in said
    assert not pepper.exists()
    assert "the pepper" in failed(server, "keys", "create", "default")
    assert "the pepper" in failed(server, "doctor")
    pepper.write_text("another pepper of 32 characters!")
    pepper.chmod(0o600)
    assert "is not the one that the 2 keys" in refused_start(server)
    assert "is not the one that" in failed(server, "doctor")
    assert "TIDEGATE_PEPPER is not the one" in refused_start(server, TIDEGATE_PEPPER="of another host, by mistake")
    pepper.write_text(kept)
    pepper.chmod(0o644)
    assert f"chmod 600 {pepper}" in refused_start(server)
    pepper.chmod(0o600)
    server.restart_stopped()
    assert status(server, "tg-test-client-key") == 200


def test_a_lost_pepper_can_be_given_up(start: Any) -> None:
    server = start()
    assert "in use by process" in failed(server, "keys", "forget-pepper", "--yes")
    assert server.stop() == 0
    (server.folder / "data" / "pepper").unlink()
    assert server.command("keys", "forget-pepper", "--yes").stdout.startswith("2 keys are revoked")
    made = server.tidegate("keys", "create", "default", "--json")
    server.restart_stopped()
    assert [status(server, key) for key in ("tg-test-client-key", made["secret"])] == [401, 200]


def test_commands_use_the_configured_pepper_file(start: Any, tmp_path: Path) -> None:
    pepper = tmp_path / "pepper.txt"
    pepper.write_text("a pepper in a file of its own\n")
    server = start(f'[records]\npepper_file = "{pepper}"\n')
    assert server.stop() == 0
    made = server.tidegate("keys", "create", "default", "--json")
    assert not (server.folder / "data" / "pepper").exists()
    server.restart_stopped()
    assert status(server, made["secret"]) == 200


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('[clients.a]\n[[clients.a.keys]]\nsecret = "short"\n', "at least 16 visible ASCII characters"),
        ('[clients.a]\n[[clients.a.keys]]\nsecret_file = "short.key"\n', "at least 16 visible ASCII characters"),
        ('[clients.a]\nroutes = ["chatt"]\n', "did you mean 'chat'?"),
        ('[clients.a]\n[[clients.a.keys]]\nsecret = "tg-0123456789abcdef"\nroutes = ["embedings"]\n', "'embeddings'"),
    ],
)
def test_secrets_and_routes_of_the_file_are_checked(tmp_path: Path, config: str, said: str, cli: Any) -> None:
    (tmp_path / "gateway.toml").write_text(config)
    (tmp_path / "short.key").write_text("short\n")
    for command in (("check",), ("serve", "--listen", "127.0.0.1:0")):
        done = cli(*command)
        assert done.returncode == 1, done.stdout
        assert said in done.stderr


def test_scopes_given_by_command_are_checked(start: Any) -> None:
    server = start()
    for running in (True, False):
        if not running:
            assert server.stop() == 0
        for verb in (("clients", "create", "x"), ("keys", "create", "default"), ("clients", "edit", "default")):
            assert "did you mean 'chat'?" in failed(server, *verb, "--route", "chatt")
        name = f"scoped-{running}"
        done = server.command("clients", "create", name, "--model", "demo-smal", "--worker", "x", "--route", "chat*")
        assert done.returncode == 0, done.stderr
        assert "no model of the configuration is called 'demo-smal'; did you mean 'demo-small'?" in done.stderr
        assert "no worker of the configuration is called 'x'" in done.stderr
        for days in ("0", "-1", "nan", "inf", "1e9"):
            assert "--days" in failed(server, "keys", "create", "default", "--days", days, code=2)
        assert "rate" in failed(server, "clients", "edit", "default", "--requests", "often")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"TIDEGATE_ADMIN_KEY": "only-12-long"}, "TIDEGATE_ADMIN_KEY must be at least 16"),
        (
            {"TIDEGATE_ADMIN_KEY": "tg-0123456789abcdef", "TIDEGATE_CLIENT_KEY": "tg-0123456789abcdef"},
            "TIDEGATE_ADMIN_KEY and TIDEGATE_CLIENT_KEY hold the same key",
        ),
        (
            {"TIDEGATE_CLIENT_KEY": "tg-also-in-the-file"},
            "TIDEGATE_CLIENT_KEY is the secret of a key in gateway.toml too",
        ),
    ],
)
def test_first_keys_that_can_not_be_taken(tmp_path: Path, env: dict[str, str], said: str, cli: Any) -> None:
    (tmp_path / "gateway.toml").write_text('[clients.a]\n[[clients.a.keys]]\nsecret = "tg-also-in-the-file"\n')
    done = cli("serve", "--listen", "127.0.0.1:0", **env)
    assert done.returncode == 1
    assert said in done.stderr
    # and nothing of it stays: with the variables put right, it starts
    assert "default" not in cli("clients", "list").stdout


def test_lists_say_dollars_and_instants(start: Any) -> None:
    server = start('[clients.a]\nbudget = { month_usd = 1.5 }\n[[clients.a.keys]]\nsecret = "tg-0123456789abcdef"\n')
    shown = json.dumps([server.tidegate(what, "list", "--json") for what in ("clients", "keys")])
    assert "_ns" not in shown
    assert "pusd" not in shown
    assert '"month_usd": "1.5"' in shown
    assert re.search(r'"created": "20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z"', shown)
    status(server, "tg-0123456789abcdef")
    calls = server.calls()
    assert "_ns" not in json.dumps(calls)
    assert calls[0]["started"].endswith("Z")
