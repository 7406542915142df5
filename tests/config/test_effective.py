"""What a configuration comes to: implied providers, the fake one, models for every name."""

from __future__ import annotations

from gateway.config import at_demo, effective


def _kinds(settings):
    return {name: provider.kind for name, provider in settings.providers.items()}


def _targets(settings):
    return {name: [target.to for target in model.targets] for name, model in settings.models.items()}


def test_a_key_in_the_environment_makes_its_provider_live(loaded):
    env = {"OPENAI_API_KEY": "sk-o", "ANTHROPIC_API_KEY": "sk-a"}
    live = effective(loaded("").settings, env)
    assert _kinds(live) == {"openai": "openai", "anthropic": "anthropic"}
    assert live.providers["openai"].key == "sk-o"
    assert live.providers["openai"].base_url == "https://api.openai.com/v1"
    assert live.providers["anthropic"].key == "sk-a"
    assert live.providers["anthropic"].base_url == "https://api.anthropic.com"
    assert _targets(live) == {"*": ["openai/*"], "claude-*": ["anthropic/*"]}
    assert not live.demo


def test_one_key_alone_serves_every_name(loaded):
    assert _targets(effective(loaded("").settings, {"OPENAI_API_KEY": "k"})) == {"*": ["openai/*"]}
    assert _targets(effective(loaded("").settings, {"ANTHROPIC_API_KEY": "k"})) == {"*": ["anthropic/*"]}
    assert effective(loaded("").settings, {"OPENAI_API_KEY": ""}).demo


def test_with_no_provider_the_fake_one_answers_on_both_sets_of_routes(loaded):
    live = effective(loaded("").settings, {})
    assert live.demo
    assert _kinds(live) == {"demo": "openai", "demo-anthropic": "anthropic"}
    assert all(provider.demo for provider in live.providers.values())
    assert _targets(live) == {
        "demo-small": ["demo/demo-small", "demo-anthropic/demo-small"],
        "demo-large": ["demo/demo-large", "demo-anthropic/demo-large"],
    }
    there = at_demo(live, "http://127.0.0.1:4567/")
    assert there.demo
    assert {name: provider.base_url for name, provider in there.providers.items()} == {
        "demo": "http://127.0.0.1:4567/v1",
        "demo-anthropic": "http://127.0.0.1:4567",
    }
    assert all(provider.demo for provider in there.providers.values())


def test_what_is_configured_is_left_alone(loaded):
    settings = loaded(
        """
        [providers.ollama]
        kind = "openai"
        base_url = "http://127.0.0.1:11434/v1"
        [models.m]
        targets = ["ollama/m"]
        """
    ).settings
    live = effective(settings, {"OPENAI_API_KEY": "sk-o"})
    assert _kinds(live) == {"ollama": "openai"}
    assert _targets(live) == {"m": ["ollama/m"]}
    assert not live.demo
    assert at_demo(live, "http://127.0.0.1:1") == live


def test_a_model_may_name_a_provider_that_only_the_environment_implies(loaded):
    settings = loaded('[models.fast]\ntargets = ["openai/gpt-4o-mini"]\n', {"OPENAI_API_KEY": "k"}).settings
    live = effective(settings, {"OPENAI_API_KEY": "k"})
    assert _targets(live) == {"fast": ["openai/gpt-4o-mini"]}


def test_a_provider_of_kind_http_is_a_worker(loaded):
    settings = loaded(
        """
        [providers.granulator]
        kind = "http"
        base_url = "http://127.0.0.1:9001/"
        api_key = "k"
        max_concurrent = 3
        timeouts = { total_s = 12 }
        """
    ).settings
    live = effective(settings, {})
    worker = live.workers["granulator"]
    assert live.providers == {}
    assert not live.demo
    assert (worker.base_url, worker.key, worker.max_concurrent, worker.timeout_s) == (
        "http://127.0.0.1:9001", "k", 3, 12,
    )  # fmt: skip
    assert worker.timeouts.upstream().total_s == 12


def test_the_environments_base_urls_are_clients_business(loaded):
    env = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}
    assert effective(loaded("").settings, env).providers["openai"].base_url == "https://api.openai.com/v1"
