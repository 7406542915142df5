"""Tidegate: the gate between services and AI providers."""

__version__ = "0.1.0"
