"""How each kind of provider is spoken to: reading a request, addressing it, metering the reply."""

from __future__ import annotations

from gateway.providers.anthropic import Anthropic
from gateway.providers.base import Kind
from gateway.providers.http import Http
from gateway.providers.openai import OpenAI
from gateway.providers.vocabulary import Vocabulary

#: What token counts are made with; nothing is loaded before the first one.
VOCABULARY = Vocabulary()

#: The kinds by the name that gateway.toml calls them.
KINDS: dict[str, Kind] = {kind.name: kind for kind in (OpenAI(VOCABULARY), Anthropic(VOCABULARY), Http(VOCABULARY))}
