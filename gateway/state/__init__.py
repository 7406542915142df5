"""Shared state: the Store contract and its backends."""
