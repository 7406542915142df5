"""Scenarios with limits that are passed or not: `make scenarios`."""
