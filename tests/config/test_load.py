"""Where settings come from: flag over environment over file over default, and what each value's origin is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import ConfigError, load


def test_an_empty_file_gives_the_defaults(loaded):
    settings = loaded("").settings
    assert settings.server.listen == "127.0.0.1:8080"
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.server.body_limit == 32 * 2**20
    assert settings.records.durability == "process"
    assert settings.providers == {}


def test_no_file_at_all_is_a_configuration(monkeypatch, elsewhere):
    loaded = load(env={"TIDEGATE__POLICIES": '["identity"]'})
    assert loaded.path is None
    assert loaded.settings.server.data_dir == elsewhere / "data"


def test_flag_over_environment_over_file_over_default(loaded):
    text = """
        [server]
        drain_s = 1
        keep_alive_s = 1
        write_timeout_s = 1
    """
    env = {"TIDEGATE__SERVER__KEEP_ALIVE_S": "2", "TIDEGATE__SERVER__WRITE_TIMEOUT_S": "2"}
    loaded = loaded(text, env, {"server.write_timeout_s": "3"})
    server = loaded.settings.server
    assert (server.header_timeout_s, server.drain_s, server.keep_alive_s, server.write_timeout_s) == (10, 1, 2, 3)
    assert loaded.origins["server.header_timeout_s"] == "default"
    assert loaded.origins["server.drain_s"] == "file:4"
    assert loaded.origins["server.keep_alive_s"] == "env:TIDEGATE__SERVER__KEEP_ALIVE_S"
    assert loaded.origins["server.write_timeout_s"] == "flag:--set server.write_timeout_s"


def test_environment_values_are_typed_like_toml_and_names_match_quoted_keys(loaded):
    text = """
        [providers.open-ai]
        kind = "openai"
        [models."gpt-4.1"]
        targets = ["open-ai/gpt-4.1"]
    """
    env = {
        "TIDEGATE__SERVER__WATCH": "true",
        "TIDEGATE__SERVER__LISTEN": "0.0.0.0:80",
        "TIDEGATE__SERVER__TRUSTED_PROXIES": '["10.0.0.0/8"]',
        "TIDEGATE__PROVIDERS__OPEN_AI__API_KEY": "12345",  # looks like a number and is text
        "TIDEGATE__MODELS__GPT_4_1__ALIASES": '["four"]',
        "TIDEGATE__TIERS__BASIC__BUDGET__MONTH_USD": "0.25",
    }
    settings = loaded(text, env).settings
    assert settings.server.watch is True
    assert settings.server.listen == "0.0.0.0:80"
    assert settings.server.trusted_proxies == ("10.0.0.0/8",)
    assert settings.providers["open-ai"].key == "12345"
    assert settings.models["gpt-4.1"].aliases == ("four",)
    assert settings.tiers["basic"].budget.month_pusd == 250_000_000_000


def test_a_mistake_in_the_environment_or_a_flag_names_it(problems):
    (problem,) = problems("", {"TIDEGATE__SERVER__DRAIN_S": "soon"})
    assert problem.where == "env:TIDEGATE__SERVER__DRAIN_S"
    assert (problem.table, problem.key) == ("server", "drain_s")
    (problem,) = problems("", {"TIDEGATE__SERVER__DRAINS": "1"})
    assert problem.where == "env:TIDEGATE__SERVER__DRAINS"
    assert "drain_s" in problem.hint
    (problem,) = problems("", None, {"server.protocol": "http3"})
    assert problem.where == "flag:--protocol"
    (problem,) = problems("", {"TIDEGATE__POLICIES__X": "1"})
    assert "is not a table" in problem.message


def test_the_file_is_the_one_named_else_that_of_the_variable_else_the_one_here(write, elsewhere):
    named = write('policies = ["identity"]\n[server]\nlog_level = "debug"\n', "named.toml")
    other = write('policies = ["identity"]\n[server]\nlog_level = "error"\n', "other.toml")
    (elsewhere / "gateway.toml").write_text('policies = ["identity"]\n[server]\nlog_level = "warning"\n')
    env = {"TIDEGATE_CONFIG": str(other)}
    assert load(named, env=env).settings.server.log_level == "debug"
    assert load(env=env).settings.server.log_level == "error"
    assert load(env={}).settings.server.log_level == "warning"
    assert load(env={}).path == Path("gateway.toml")


def test_a_named_file_that_is_not_there_stops_start_up(tmp_path):
    for path, env in ((tmp_path / "nowhere.toml", {}), (None, {"TIDEGATE_CONFIG": str(tmp_path / "nowhere.toml")})):
        with pytest.raises(ConfigError, match=r"there is no file .*nowhere\.toml"):
            load(path, env=env)
    with pytest.raises(ConfigError, match="there is no file"):
        load(tmp_path, env={})


def test_a_file_that_is_no_text_is_told_so(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path, env={})


def test_a_byte_order_mark_and_crlf_are_read(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_bytes(b'\xef\xbb\xbfpolicies = ["identity"]\r\n[server]\r\ndrain_s = 7\r\n')
    loaded = load(path, env={})
    assert loaded.settings.server.drain_s == 7
    assert loaded.origins["server.drain_s"] == "file:3"


def test_paths_start_from_the_file_that_names_them(loaded, tmp_path, elsewhere):
    assert loaded("").settings.server.data_dir == tmp_path / "data"
    assert loaded('[server]\ndata_dir = "d"').settings.server.data_dir == tmp_path / "d"
    assert loaded("", {"TIDEGATE__SERVER__DATA_DIR": "d"}).settings.server.data_dir == elsewhere / "d"
    assert loaded("", None, {"server.data_dir": "d"}).settings.server.data_dir == elsewhere / "d"
    assert loaded('[server]\ndata_dir = "/var/d"').settings.server.data_dir == Path("/var/d")


def test_settings_can_not_be_changed_and_never_show_a_credential(loaded):
    loaded = loaded(
        """
        [providers.openai]
        kind = "openai"
        api_key = "sk-very-secret-1"
        headers = { x-team = "sk-very-secret-2" }
        query = { key = "sk-very-secret-3" }
        [[clients.acme.keys]]
        secret = "sk-very-secret-4"
        """
    )
    assert "sk-very-secret" not in repr(loaded.settings)
    assert "sk-very-secret" not in str(loaded.settings.model_dump())
    with pytest.raises(ValueError, match="frozen"):
        loaded.settings.server.listen = "0.0.0.0:1"


def test_origins_reach_into_lists_and_inline_tables(loaded):
    origins = loaded(
        """
        [providers.a]
        kind = "openai"
        timeouts = { connect_s = 1 }
        [models.m]
        targets = [
          "a/x",
          { to = "a/y", weight = 2 },
        ]
        [[clients.c.keys]]
        secret = "0123456789abcdef"
        [[clients.c.keys]]
        secret = "fedcba9876543210"
        """
    ).origins
    assert origins["providers.a.timeouts.connect_s"] == "file:5"
    assert origins["providers.a.timeouts.total_s"] == "default"
    assert origins["models.m.targets[0].to"] == "file:8"
    assert origins["models.m.targets[1].weight"] == "file:9"
    assert origins["clients.c.keys[0].secret"] == "file:12"
    assert origins["clients.c.keys[1].secret"] == "file:14"
    assert origins["clients.c.keys[1].role"] == "default"
    assert origins["tiers.basic.priority"] == "default"
