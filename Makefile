SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -rsfE
SERVICES := tests/services/services

# The first interpreter that runs and is new enough; a pyenv shim may be on PATH and fail. Or: make install PYTHON=...
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help install lint types contracts reference check check-deploy lock docs test test-again test-fast coverage bench chaos demo demo-kafka services stop clean

help:  ## this list
	@awk -F ':.*##' '/^[a-z-]+:.*##/ {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## .venv with headrace and the tools; .venv/bin/headrace is the command

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo 'no Python 3.11, 3.12 or 3.13 on PATH: install one, or make install PYTHON=/path/to/python' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	@# setuptools warns at every editable install about folders named like packages: here they are the packages
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --group dev -e .
	@touch $@

# what `headrace demo` needs beside Headrace itself
$(VENV)/.demo: $(VENV)/.installed
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q -e '.[demo]'
	@touch $@

lint: install  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## mypy, strict
	$(BIN)/mypy

contracts: install  ## who may import whom
	$(BIN)/lint-imports --no-logo

reference: install  ## write the parts of the docs anew that are made from the code
	$(BIN)/python -m tests.house.regenerate

check: lint types contracts  ## lint, types and contracts

$(VENV)/.deploy: $(VENV)/.installed
	$(BIN)/python -m pip install -q --group deploy
	@touch $@

check-deploy: $(VENV)/.deploy  ## Dockerfile, compose file, Kubernetes manifests and systemd unit, without an engine
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/kubernetes-validate --strict deploy/kubernetes/*.yaml
	@# the command need not be installed where the unit says
	sed 's|/opt/headrace/bin/|$(CURDIR)/$(BIN)/|' deploy/headrace.service > $(VENV)/headrace.service
	@if command -v systemd-analyze > /dev/null; then systemd-analyze verify $(VENV)/headrace.service; else echo 'no systemd-analyze: the unit was not checked'; fi

lock: $(VENV)/.deploy  ## write down the versions of what the image installs: deploy/requirements.txt
	echo '# What the image installs, by version and hash. Made from pyproject.toml by `make lock`.' > deploy/requirements.txt
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml >> deploy/requirements.txt

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install -q --group docs
	@touch $@

docs: $(VENV)/.docs  ## the pages as a site: build/site/index.html
	rm -rf build/pages build/site
	mkdir -p build/pages/config build/pages/handlers
	cp docs/* CHANGELOG.md build/pages/
	cp -r config/examples build/pages/config/
	cp -r handlers/examples build/pages/handlers/
	sed -i 's#](\.\./#](#g; s#](docs/#](#g' build/pages/*.md
	$(BIN)/zensical build --clean --strict

services: install  ## start Kafka, LocalStack, DynamoDB Local and Redis, as far as this machine can; they stay up
	@$(BIN)/python $(SERVICES) start kafka localstack dynamodb redis || echo 'tests that need what did not start are skipped and say so'

stop:  ## stop the servers that `make services` started
	@$(BIN)/python $(SERVICES) stop all

test: install $(VENV)/.demo services  ## every test, with real servers (they stay up for the next run: make stop)
	$(PYTEST) tests/core tests/machines tests/sim tests/house tests/handlers tests/conformance tests/live

test-again: install  ## up to two tests among real servers and processes that failed in `make test`: each must pass three times
	$(BIN)/python -m tests.again

test-fast: install  ## the tests that need no server
	$(PYTEST) -m 'not live'

coverage: install  ## the core must be covered to the last branch
	$(BIN)/coverage run -m pytest -q tests/core tests/machines
	$(BIN)/coverage report --include='router/core/*' --fail-under=100

demo: $(VENV)/.demo  ## the whole story in a minute: queues, a bucket, a poison record and its replay
	$(BIN)/headrace demo

demo-kafka: install  ## the same on a real Kafka, which it starts (Java 17, Maven)
	$(BIN)/headrace demo --kafka

clean:  ## remove what make and the tools made here
	rm -rf $(VENV) build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

bench: install  ## every figure of docs/benchmarks.md, on a real Kafka; takes two hours of a machine without other work
	$(BIN)/python -m bench.core
	$(BIN)/python -m bench.invoke
	$(BIN)/python -m bench.scale_up
	$(BIN)/python -m bench.api_invoke
	$(BIN)/python -m bench.kafka --size 200
	$(BIN)/python -m bench.kafka --size 1000 --only getmany headrace-100
	$(BIN)/python -m bench.rebalance
	$(BIN)/python -m bench.replicas
	$(BIN)/python -m bench.latency
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.sqs
	$(BIN)/python -m bench.fifo
	$(BIN)/python -m bench.keyed
	$(BIN)/python -m bench.kinesis
	$(BIN)/python -m bench.shards
	$(BIN)/python -m bench.many_shards
	$(BIN)/python -m bench.keyed_shards
	$(BIN)/python -m bench.failures --failures 100000
	$(BIN)/python -m bench.inbox
	$(BIN)/python -m bench.lease_table
	$(BIN)/python -m bench.redis_store
	$(BIN)/python -m bench.handover
	$(BIN)/python -m bench.reload
	$(BIN)/python -m bench.idle
	$(BIN)/python -m bench.api_mappings
	$(BIN)/python -m bench.fleet_sim --into docs/scaling.md
	$(BIN)/python -m bench.soak

EVENTS ?= 340
SEED ?= 1
chaos: install  ## three replicas over every source, in trouble of every kind; takes 18 minutes, and writes docs/reliability.md
	$(BIN)/python -m bench.chaos --events $(EVENTS) --seed $(SEED) --docs
