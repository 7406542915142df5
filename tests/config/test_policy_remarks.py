"""Settings of policies that are right and yet without effect are told."""

from __future__ import annotations

from typing import Any

import pytest

MODELS = """
policies = ["identity", "cache", "downgrade", "batch"]
[providers.fake]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "x"
[models.dear]
targets = ["fake/large"]
aliases = ["best"]
[models.cheap]
targets = ["fake/small"]
"""
ALWAYS = "when = { always = true }"


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (f'[policy.downgrade]\nchains = {{ best = "cheap" }}\n{ALWAYS}', ()),
        (
            f'[policy.downgrade]\nchains = {{ dear = "chaep" }}\n{ALWAYS}',
            ("policy.downgrade.chains: no model of the configuration is called 'chaep'; did you mean 'cheap'?",),
        ),
        (
            '[policy.downgrade]\nchains = { dear = "cheap" }\nwhen = { off_peak = false }',
            ("policy.downgrade.chains: has no effect, since `when` names no trigger, such as always = true",),
        ),
        (
            '[policy.downgrade]\nchains = { dear = "cheap" }\nwhen = { off_peak = true }',
            ("policy.downgrade.when: off_peak never holds without `peak`",),
        ),
        ("[policy.downgrade]\nchains = { dear = 'cheap' }\nwhen = { budget_used_percent = 0 }", ()),
        ("[policy.cache]\nroutes = { chat = 60, embeddings = 0 }", ()),
        (
            "[policy.cache]\nroutes = { images = 60 }",
            (
                "policy.cache.routes: 'images' is no route whose answers are kept; these are: chat, completions, "
                "count_tokens, embeddings, messages, moderations, responses",
            ),
        ),
        (
            "[policy.batch]\nmodels = { embed = 5 }",
            ("policy.batch.models: no model of the configuration is called 'embed'",),
        ),
        (
            '[hedge]\nroutes = ["embeddings", "moderation"]',
            ("hedge.routes: there is no route 'moderation'; did you mean 'moderations'?",),
        ),
    ],
)
def test_what_has_no_effect_is_told(loaded: Any, policy: str, told: tuple[str, ...]) -> None:
    assert loaded(MODELS + policy).warnings == told
