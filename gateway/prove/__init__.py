"""Proves limits and fairness of any OpenAI-compatible gateway from the outside: `tidegate prove`."""
