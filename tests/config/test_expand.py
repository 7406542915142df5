"""${VAR}, ${VAR:-default}, *_file."""

from __future__ import annotations

import pytest

from gateway.config import load

OPENAI = '[providers.openai]\nkind = "openai"\napi_key = "{}"\n'


@pytest.mark.parametrize(
    ("text", "env", "key"),
    [
        ("${K}", {"K": "sk-1"}, "sk-1"),
        ("Bearer ${A}-${B}", {"A": "1", "B": "2"}, "Bearer 1-2"),
        ("${K:-none}", {}, "none"),
        ("${K:-none}", {"K": ""}, "none"),
        ("${K:-none}", {"K": "some"}, "some"),
        ("${K:-}", {}, ""),
        ("${K:-a:-b}", {}, "a:-b"),
        ("$${K}", {"K": "x"}, "${K}"),
        ("$K $ {K}", {"K": "x"}, "$K $ {K}"),
        ("${K}", {"K": "${OTHER}"}, "${OTHER}"),  # what a variable holds is not read again
    ],
)
def test_references_are_replaced(loaded, text, env, key):
    assert loaded(OPENAI.format(text), env).settings.providers["openai"].key == key


@pytest.mark.parametrize("env", [{}, {"OPENAI_API_KEY": ""}])
def test_an_unset_variable_stops_start_up_and_names_file_line_table_and_key(problems, env):
    (problem,) = problems(OPENAI.format("${OPENAI_API_KEY}"), env)
    assert problem.where.endswith("gateway.toml")
    assert (problem.line, problem.column) == (4, 11)
    assert (problem.table, problem.key) == ("providers.openai", "api_key")
    assert problem.message == f"environment variable OPENAI_API_KEY is {'empty' if env else 'not set'}"
    assert "${OPENAI_API_KEY:-default}" in problem.hint


@pytest.mark.parametrize(("text", "said"), [("${NOPE", "without its end"), ("${A:-${B}}", "in its default")])
def test_half_a_reference_and_one_in_another_are_refused(problems, text, said):
    assert said in problems(OPENAI.format(text), {"B": "2"})[0].message


def test_who_uses_no_provider_needs_none_of_its_variables(write):
    path = write(OPENAI.format("${NOT_HERE}"))
    assert load(path, {}, {}, patient=True).settings.providers["openai"].key == "${NOT_HERE}"


def test_an_unset_variable_is_guessed_at(problems):
    (problem,) = problems(OPENAI.format("${OPENAI_KEY}"), {"OPENAI_API_KEY": "sk-secret", "OPENAI_HOST": "x"})
    assert "did you mean ${OPENAI_API_KEY}?" in problem.hint
    assert "sk-secret" not in repr(problem)


def test_variables_in_lists_and_tables_are_found_each_with_its_line(problems):
    found = problems(
        """
        [server]
        trusted_proxies = [
          "10.0.0.1",
          "${PROXY}",
        ]
        [providers.a]
        kind = "openai"
        headers = { x-team = "${TEAM}" }
        """
    )
    assert [(problem.line, problem.key) for problem in found] == [(6, "trusted_proxies[1]"), (10, "x-team")]


def test_what_is_no_reference_is_refused(problems):
    (problem,) = problems(OPENAI.format("${not a name}"), {})
    assert "not a reference" in problem.message


def test_a_credential_comes_from_a_file(loaded, tmp_path):
    (tmp_path / "openai.key").write_text("sk-from-file\n")
    (tmp_path / "openai.key").chmod(0o600)
    (tmp_path / "client.key").write_text("0123456789abcdef")
    (tmp_path / "client.key").chmod(0o644)
    loaded = loaded(
        """
        [providers.openai]
        kind = "openai"
        api_key_file = "openai.key"
        [[clients.acme.keys]]
        secret_file = "client.key"
        """
    )
    assert loaded.settings.providers["openai"].key == "sk-from-file"
    secret = loaded.settings.clients["acme"].keys[0].secret
    assert secret is not None
    assert secret.get_secret_value() == "0123456789abcdef"
    assert "sk-from-file" not in repr(loaded.settings)
    (warning,) = loaded.warnings
    assert "client.key is open to every user" in warning


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), ("", "empty"), ("a b", "more than one word")])
def test_a_file_without_a_credential_stops_start_up(problems, tmp_path, content, reason):
    if content is not None:
        (tmp_path / "openai.key").write_text(content)
    (problem,) = problems('[providers.openai]\nkind = "openai"\napi_key_file = "openai.key"\n')
    assert reason in problem.message
    assert (problem.line, problem.table, problem.key) == (4, "providers.openai", "api_key_file")


def test_a_credential_is_given_once(problems, tmp_path):
    (problem,) = problems('[providers.openai]\nkind = "openai"\napi_key = "a"\napi_key_file = "b"\n')
    assert problem.expected == "api_key or api_key_file, not both"
    assert problem.line == 5
