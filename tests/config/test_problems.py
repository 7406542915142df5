"""Every mistake is named with file, line, table, key, what was found, what would be right, what was probably meant."""

from __future__ import annotations

import json
import sys

import pytest

from gateway.config import ConfigError, load, show_problems

KEY = '[[clients.a.keys]]\nsecret = "SECRET-OF-16-CHR"'
PROVIDER = '[providers.a]\nkind = "openai"\n'


@pytest.mark.parametrize(
    ("text", "line", "table", "key", "expected", "hint"),
    [
        ("[sever]\nlisten = 1", 2, "", "sever", "server", "did you mean 'server'?"),
        ('[server]\nlistn = "x"', 3, "server", "listn", "listen", "did you mean 'listen'?"),
        ('[server]\ntime_zone = "UTC"', 3, "server", "time_zone", "", "'time_zone' belongs in [records]"),
        ('[clients.a]\nsecret = "x"', 3, "clients.a", "secret", "", "'secret' belongs in [[clients.a.keys]]"),
        ('[server]\ndrain_s = "5"', 3, "server", "drain_s", "a number of seconds", ""),
        ("[server]\nwatch = 1", 3, "server", "watch", "true or false", ""),
        ("[server]\nlisten = 8080", 3, "server", "listen", "text in quotes", ""),
        ("[server]\nmax_headers = 1.5", 3, "server", "max_headers", "a whole number", ""),
        ("[server]\nmax_headers = 0", 3, "server", "max_headers", "a number at least 1", ""),
        ('[server]\ntrusted_proxies = "10.0.0.1"', 3, "server", "trusted_proxies", "a list", ""),
        ("server = 1", 2, "", "server", "a table", ""),
        ('[server]\nprotocol = "nativ"', 3, "server", "protocol", '"native" or "httptools"', 'did you mean "native"?'),
        ("[server]\nworkers = 4", 3, "server", "workers", "not built yet", ""),
        ('[server]\nbody_limit = "32 mebi"', 3, "server", "body_limit", '"32 MiB"', ""),
        ('[server]\nbody_limit = -1', 3, "server", "body_limit", '"32 MiB"', ""),
        ('[server]\nlisten = "8080"', 3, "server", "listen", '"127.0.0.1:8080"', ""),
        ('[server]\nlisten = "127.0.0.1:99999"', 3, "server", "listen", '"127.0.0.1:8080"', ""),
        ('[server]\nlisten = "300.0.0.1:80"', 3, "server", "listen", '"127.0.0.1:8080"', ""),
        ('[server]\nlisten = "::1:80"', 3, "server", "listen", '"[::1]:8080"', ""),
        ('[server]\ntrusted_proxies = ["10.0.0.0/33"]', 3, "server", "trusted_proxies[0]", "10.0.0.0/8", ""),
        ('[server]\nroot_path = "ai"', 3, "server", "root_path", '"/ai"', ""),
        ('[records]\ntime_zone = "Mars/Olympus"', 3, "records", "time_zone", "Europe/Vienna", ""),
        ('[records]\ntime_zone = "../../etc/passwd"', 3, "records", "time_zone", "Europe/Vienna", ""),
        ('[records]\nurl = "postgresql://x"', 3, "records", "url", "not built yet", ""),
        ('[state]\nurl = "redis://x"', 3, "state", "url", "not built yet", ""),
        ('[providers.a]\nkind = "openia"', 3, "providers.a", "kind", '"anthropic"', 'did you mean "openai"?'),
        ('[providers.a]\napi_key = "x"', 2, "providers.a", "kind", '"openai"', "add a line kind"),
        ('[providers.a]\nkind = "http"', 2, "providers.a", "base_url", "a base URL", ""),
        (PROVIDER + 'base_url = "api.openai.com"', 4, "providers.a", "base_url", '"https://api.openai.com/v1"', ""),
        (PROVIDER + 'base_url = "http://u:p@h/v1"', 4, "providers.a", "base_url", "belong in api_key", ""),
        (PROVIDER + 'base_url = "http://h/v1?a=b"', 4, "providers.a", "base_url", "`query`", ""),
        (PROVIDER + "trust_env = true", 4, "providers.a", "trust_env", 'client = "httpx"', ""),
        (PROVIDER + "timeouts = { idle = 5 }", 4, "providers.a.timeouts", "idle", "idle_s", "did you mean 'idle_s'?"),
        (PROVIDER + 'auth_header = "x y"', 4, "providers.a", "auth_header", "name of a header", ""),
        (PROVIDER + 'pass_headers = ["Authorization"]', 4, "providers.a", "pass_headers[0]", "never goes upstream", ""),
        (PROVIDER + 'headers = { host = "x" }', 4, "providers.a", "headers", "name of a header", ""),
        (PROVIDER + 'headers = { x-a = "a\\nb" }', 4, "providers.a", "headers", "on one line", ""),
        ('["providers"."a b"]\nkind = "openai"', 2, "providers", '"a b"', "a name of letters", ""),
        ("[models.m]\naliases = []", 2, "models.m", "targets", "a list of targets", ""),
        ("[models.m]\ntargets = []", 2, "models", "m", "at least one target", ""),
        ('[models.m]\ntargets = ["gpt-4o"]', 3, "models.m", "targets[0]", '"openai/gpt-4o"', ""),
        ('[models.m]\ntargets = [{ to = "a/b", wait = 1 }]', 3, "models.m.targets[0]", "wait", "weight", "weight"),
        ('[clients.a]\nquota = { requests = ["600 an hour"] }', 3, "clients.a.quota", "requests[0]", "600/minute", ""),
        ('[clients.a]\nquota = { requests = ["1/minute;2/day"] }', 3, "clients.a.quota", "requests[0]", "one rate", ""),
        ("[clients.a]\nbudget = { day_usd = -1 }", 3, "clients.a.budget", "day_usd", "an amount in US dollars", ""),
        ("[clients.a]\nbudget = { day_usd = nan }", 3, "clients.a.budget", "day_usd", "an amount in US dollars", ""),
        ("[server]\ndrain_s = nan", 3, "server", "drain_s", "a number of seconds", ""),
        (PROVIDER + 'api_key = "a\\nb-secret-key"', 4, "providers.a", "api_key", "without line breaks", ""),
        ('[records]\njournal = "99999 GiB"', 3, "records", "journal", "", ""),
        ("[tiers.basic]\npriority = 50", 3, "tiers.basic", "priority", "a number at most 40", ""),
        ("[tiers.basic]\nrate_multiplier = 1.2345", 3, "tiers.basic", "rate_multiplier", "at most 3 decimals", ""),
        ('[[clients.a.keys]]\nrole = "admin"', 2, "clients.a", "keys[0]", "exactly one of secret", ""),
        ('[[clients.a.keys]]\nhash = "abc"', 3, "clients.a.keys[0]", "hash", "64 hexadecimal digits", ""),
        (KEY + '\nexpires = "soon"', 4, "clients.a.keys[0]", "expires", "2027-01-01", ""),
        (KEY + '\nexpires = 2027-01-01T00:00:00', 4, "clients.a.keys[0]", "expires",
         "with its offset", ""),
        ('[prices.m]\ninput = "2.50"', 3, "prices.m", "input", "a price in US dollars", ""),
        ("[prices.m]\ninputs = 2.5", 3, "prices.m", "inputs", "input", "did you mean 'input'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_placed_and_explained(problems, text, line, table, key, expected, hint):
    (problem,) = problems(text)
    assert problem.where.endswith("gateway.toml")
    assert (problem.line, problem.table, problem.key) == (line, table, key)
    assert problem.column > 0
    assert problem.source
    assert expected in problem.expected
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("text", "line", "table", "key", "message", "hint"),
    [
        (PROVIDER + '[models.m]\ntargets = ["b/x"]', 5, "models.m", "targets[0]", "unknown provider 'b'", ""),
        ('[providers.openai]\nkind = "openai"\n[models.m]\ntargets = [\n "openia/x"]', 6, "models.m", "targets[0]",
         "unknown provider 'openia'", "did you mean 'openai'?"),
        ('[models.m]\ntargets = ["openai/x"]', 3, "models.m", "targets[0]", "unknown provider", "OPENAI_API_KEY"),
        ('[workers.w]\nbase_url = "http://h"\n[models.m]\ntargets = ["w/x"]', 5, "models.m", "targets[0]",
         "unknown provider", "/workers/w/"),
        (PROVIDER + '[models.m]\ntargets = ["a/*"]', 5, "models.m", "targets[0]", "takes its model's name", ""),
        (PROVIDER + '[models.m]\ntargets = ["a/x"]\naliases = ["n"]\n[models.n]\ntargets = ["a/x"]', 6, "models.m",
         "aliases[0]", "taken by model 'n'", ""),
        (PROVIDER + '[models.m]\ntargets = ["a/x"]\naliases = ["b", "b"]', 6, "models.m", "aliases[1]",
         "taken by an alias of model 'm'", ""),
        (PROVIDER + '[models.m]\ntargets = ["a/x"]\naliases = ["b*"]', 6, "models.m", "aliases[0]", "is a pattern", ""),
        ('[policy.queue.claims]\npremuim = "urgent"', 3, "policy.queue.claims", "premuim", "unknown tier",
         "did you mean 'premium'?"),
        ('[clients.a]\ntier = "standart"', 3, "clients.a", "tier", "unknown tier", "did you mean 'standard'?"),
        (KEY + "\n" + KEY.replace("clients.a", "clients.b"), 4, "clients.b", "keys[0]",
         "has the secret of clients.a.keys[0] (line 2)", ""),
        (KEY + '\nid = "k"\n[[clients.b.keys]]\nsecret = "ANOTHER-OF-16-CH"\nid = "k"', 5, "clients.b",
         "keys[0]", "has the id of clients.a.keys[0]", ""),
        ('[providers.w]\nkind = "http"\nbase_url = "http://h"\n[workers.w]\nbase_url = "http://h"', 2, "providers", "w",
         "a worker too", ""),
    ],
)  # fmt: skip
def test_a_mistake_between_tables_is_placed_and_explained(problems, text, line, table, key, message, hint):
    (problem,) = problems(text)
    assert (problem.line, problem.table, problem.key) == (line, table, key)
    assert message in problem.message
    assert hint in problem.hint


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(problems):
    found = problems(
        """
        policies = ["identity", "acess"]
        [server]
        listn = "x"
        drain_s = "y"
        [providers.openai]
        kind = "openai"
        api_key = "${NOT_SET}"
        """
    )
    assert [problem.line for problem in found] == [2, 4, 5, 8]


@pytest.mark.parametrize(
    ("policies", "line", "message", "hint"),
    [
        ('["identity", "acess"]', 1, "there is no policy 'acess'", "did you mean 'access'?"),
        ('["access", "identity"]', 1, "'access' must come after 'identity'", "order"),
        ('["identity", "access", "access"]', 1, "stands twice", "order"),
        ('["access"]', 1, "lacks 'identity'", "order"),
        ("[]", 1, "lacks 'identity'", "order"),
        ('["identity",\n"json:JSONDecoder"]', 2, "is no policy", ""),
    ],
)
def test_the_list_of_policies_is_checked(problems, policies, line, message, hint):
    (problem,) = problems(f"policies = {policies}")
    assert problem.line == line
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("text", "key", "message", "hint"),
    [
        ('[policy.access]\nmod = "observe"', "mod", "unknown key 'mod' in [policy.access]", "did you mean 'mode'?"),
        ('[policy.access]\nmode = "obs"', "mode", "value of policy.access.mode is not right", ""),
        ('[policy.identity]\nmode = "observe"', "mode", "always enforces", ""),
        ('[policy.acess]\nmode = "observe"', "acess", "not in the list", "did you mean 'access'?"),
    ],
)
def test_the_settings_of_policies_are_checked(problems, text, key, message, hint):
    (problem,) = problems(text)
    assert problem.key == key
    assert problem.line > 1
    assert message in problem.message
    assert hint in problem.hint


def test_a_policy_of_ones_own_is_taken(loaded, tmp_path, monkeypatch):
    (tmp_path / "house_rules.py").write_text(
        "from dataclasses import dataclass\n"
        "from gateway.policy import Policy\n"
        "@dataclass\n"
        "class Curfew(Policy):\n"
        "    hours: int = 8\n"
        "    def apply(self, call):\n"
        "        pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        settings = loaded(
            'policies = ["identity", "house_rules:Curfew"]\n[policy.house_rules]\nhours = 9\nmode = "observe"\n'
        ).settings
        assert settings.policy["house_rules"] == {"hours": 9, "mode": "observe"}
    finally:
        sys.modules.pop("house_rules", None)


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("[server\nlisten = 1", 1, 8, "Expected ']'", ""),
        ("[server]\nlisten = yes", 2, 10, "Invalid value", "text needs quotes"),
        ("[server]\n\nlisten 'x'", 3, 8, "Expected '='", "a line is either"),
        ("[clients.acme]\norg = 'a'\n[clients.acme]\norg = 'b'", 3, 14, "twice", "only once"),
        ('[clients.acme]\norg = "a"\n[clients."acme"]', 3, 16, "twice", "only once"),
        ("[server]\nwatch = true\nwatch = false\n", 3, 14, "overwrite", "only once"),
        ('[server]\nlisten = "x', 2, 12, "", ""),
    ],
)
def test_invalid_toml_is_placed(write, text, line, column, message, hint):
    with pytest.raises(ConfigError) as caught:
        load(write(text), env={})
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message
    assert hint in problem.hint


def test_a_deeply_nested_file_is_refused_calmly(write):
    with pytest.raises(ConfigError):
        load(write("a = " + "[" * 100_000), env={})


SECRETS = """
[providers.openai]
kind = "openai"
api_kye = "sk-hush-1"
api_key = ["sk-hush-2"]
headers = { x-team = "sk-hush-3", authorization = 5 }
[[clients.acme.keys]]
secret = "hush-4"
rle = "x"
token = 'hush-5'
[prices."hush"]
inptu = 1
"""


def test_a_credential_is_never_shown_with_a_mistake(problems, capsys):
    found = problems(SECRETS)
    text = "\n".join([ConfigError(found).render(), ConfigError(found).render(color=True), json.dumps(
        ConfigError(found).as_json())])  # fmt: skip
    assert len(found) >= 6
    for number in (1, 2, 3, 4, 5):
        assert f"hush-{number}" not in text


def test_a_mistake_is_drawn_like_a_compilers(problems):
    found = problems('[server]\nlistn = "127.0.0.1:80"\n')
    lines = ConfigError(found).render().splitlines()
    assert lines[0] == "error: unknown key 'listn' in [server]"
    assert lines[1].endswith("gateway.toml:3:1")
    assert lines[3] == '3 | listn = "127.0.0.1:80"'
    assert lines[4] == "  | ^^^^^"
    assert "\x1b[" not in "\n".join(lines)
    assert "\x1b[" in ConfigError(found).render(color=True)


def test_problems_go_to_standard_error_plainly_and_as_json_to_standard_output(problems, capsys):
    error = ConfigError(problems("[server]\nlistn = 1\n"))
    show_problems(error)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: unknown key 'listn'")  # a captured stream is no terminal
    show_problems(error, as_json=True)
    out, err = capsys.readouterr()
    assert err == ""
    (problem,) = json.loads(out)["problems"]
    assert (problem["line"], problem["table"], problem["key"]) == (3, "server", "listn")
