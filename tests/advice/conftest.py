"""A gateway whose models have round prices, in front of a real fake provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CONFIG = """
[providers.fake]
kind = "openai"
base_url = "{origin}/v1"
api_key = "upstream"
[models.gpt-4]
targets = ["fake/demo-large"]
[models."gpt-3.5-turbo"]
targets = ["fake/demo-small"]
abilities = {{ context = 100000 }}
[prices.gpt-4]
input = 200000
output = 600000
[prices."gpt-3.5-turbo"]
input = 5000
output = 15000
[clients.acme]
tier = "premium"
quota = {{ requests = ["100000/minute"] }}
budget = {{ month_usd = 1000000 }}
[[clients.acme.keys]]
secret = "tg-acme-secret-key"
[clients.other]
quota = {{ requests = ["100000/minute"] }}
budget = {{ month_usd = 1000000 }}
[[clients.other.keys]]
secret = "tg-other-secret-key"
[clients.desk]
[[clients.desk.keys]]
role = "viewer"
secret = "tg-viewer-secret-key"
[[clients.desk.keys]]
role = "service"
secret = "tg-service-secret-key"
{more}
"""


@pytest.fixture
def start_site(demo_process: Any, start: Any) -> Callable[..., Any]:
    """Starts a gateway with more configuration."""
    return lambda more="": start(CONFIG.format(origin=demo_process.origin, more=more))
