# The same commands for people and for CI. Each sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PY := .venv/bin/python
.PHONY: help run demo test lint format bench bench-peers scenarios twins lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run:  ## set up and start the gateway on 127.0.0.1:8080 (ARGS="--listen ...")
	@scripts/setup run
	@exec $(PY) -m gateway serve $(ARGS)

demo:  ## set up and send a few calls through a gateway of its own
	@scripts/setup run
	@exec $(PY) -m gateway demo $(ARGS)

test:  ## set up and run all tests (ARGS="-k name")
	@scripts/setup dev
	@scripts/setup system curl nginx wrk gcc
	@$(PY) -m pytest $(ARGS)

lint:  ## style, types, unused dependencies, Dockerfile
	@scripts/setup dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/hadolint Dockerfile
	@.venv/bin/deptry .
	@echo "lint: all clean"

format:
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

bench:  ## about 3 minutes: us and plain proxies side by side on one pinned core
	@scripts/setup dev
	@scripts/setup system curl nginx wrk gcc
	@$(PY) -m loadtests.bench --short

bench-peers:  ## the same, with other AI gateways beside us (long)
	@scripts/setup dev
	@scripts/setup system curl nginx wrk gcc
	@$(PY) -m loadtests.bench --long --peers

scenarios:  ## about 90 s: overload, recovery and goodput with limits that are passed or not (build/scenarios.json)
	@scripts/setup dev
	@$(PY) -m loadtests.scenarios

twins:  ## apply each recorded mutation and expect its test to go red
	@scripts/setup dev
	@scripts/setup system curl nginx wrk gcc
	@$(PY) scripts/twins.py $(ARGS)

lock:  ## resolve pyproject.toml into the lock files
	@scripts/lock

clean:
	@rm -rf build .venv .pytest_cache .mypy_cache .ruff_cache
