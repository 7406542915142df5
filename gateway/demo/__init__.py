"""Knows the way in: `start` runs the fake provider, a real server that speaks OpenAI and Anthropic, with faults.

It imports nothing else of the gateway, so that what it is used to test cannot colour what it answers.
"""

from gateway.demo.server import DemoServer, start
from gateway.demo.settings import DemoSettings

__all__ = ["DemoServer", "DemoSettings", "start"]
