"""Durable rows: calls and attempts, clients and keys, provider objects; their journal, writer and queries."""
