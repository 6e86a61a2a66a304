# Every command of a developer's; `make` alone lists them. The environments make themselves.

.DEFAULT_GOAL := help

# The first Python on this machine that is new enough; PYTHON=… chooses another.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin
UV := $(BIN)/uv
DEV := PYTHONPATH=deploy
DISTRIBUTIONS := libs/common libs/store services/images services/artifacts \
	services/artifacts/sample services/artifacts/client
SOURCES := libs services deploy/dev deploy/keystone tests

# T=tests/store chooses tests, J=4 the number of processes that run them.
T ?= tests
J ?= 2
PYTEST = $(BIN)/pytest -n $(J) --dist worksteal

.PHONY: help setup run stack test test-long crash fuzz compat conformance conformance-all bench lint format \
	types imports docs docs-check check lock build up down clean clean-data

help: ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' \
	| while IFS='|' read -r name what; do printf '  %-16s %s\n' "$$name" "$$what"; done

setup: ## make .venv: everything pinned, our packages editable
	@$(if $(PYTHON),,echo 'Python 3.11 or newer is needed: install it, or say PYTHON=path' >&2; exit 1)
	@$(DEV) $(PYTHON) -m dev.workspace

run: setup ## start PostgreSQL, Keystone and both services; Ctrl-C stops (IMAGES_PORT=… and such)
	@$(DEV) exec $(BIN)/python -m dev.run

stack: setup ## the same as a deployment: nodes, workers, RabbitMQ, S3 (IMAGES=2 ARTIFACTS=2 PROXY=nginx)
	@$(DEV) exec $(BIN)/python -m dev.stack

test: setup ## run the tests (T=path, J=processes)
	$(PYTEST) $(T)

test-long: setup ## run the exhaustive tests too slow for every change
	$(PYTEST) -m long --timeout 1800 $(T)

crash: setup ## kill processes at every step, many times
	$(PYTEST) -m crash --timeout 1800 $(T)

fuzz: setup ## send 20,000 requests made from the OpenAPI documents to each service
	$(PYTEST) -m fuzz --timeout 1800 tests/images/test_fuzz.py tests/artifacts/test_fuzz.py

compat: setup ## send five thousand requests to the real Glance and Glare and to ours (ONLY=glare)
	$(PYTEST) -m compat --timeout 300 tests/compat $(if $(ONLY),-k '$(ONLY)')

conformance: setup ## hold each store driver to the contract: a table of drivers and cases
	$(PYTEST) -q --conformance-table $(wildcard tests/store/test_*_conformance.py)

conformance-all: setup ## the same with Ceph (installed with apt if we are root) and S3 by RGW and Swift
	$(PYTEST) -q --conformance-table -m 'not long and not crash' --timeout 600 \
		$(wildcard tests/store/test_*_conformance.py) $(wildcard tests/store/test_rbd*.py) \
		tests/store/test_swift_faults.py

# QUICK=1 is over in two minutes and leaves docs/performance.md as it is; ONLY="requests s3" chooses.
bench: setup ## measure against the real Glance and Glare and plain tools (QUICK=1, ONLY=requests)
	@$(DEV) $(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(ONLY)

lint: setup ## check format and style
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

format: setup ## put code into the project's format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

types: setup ## check types
	$(BIN)/basedpyright

imports: setup ## check who may import whom
	$(BIN)/lint-imports

docs: setup ## write the generated pages and samples anew
	$(DEV) $(BIN)/python -m dev.documents

docs-check: setup ## check that the generated pages are up to date
	$(BIN)/pytest -q tests/structure/test_documents.py

check: lint types imports test ## all that a change must pass

lock: setup ## resolve dependencies into the lock files (UPGRADE=1: to the newest)
	$(UV) pip compile $(LOCKING) --output-file requirements.lock \
		--no-emit-package diptych-common --no-emit-package diptych-store \
		--no-emit-package diptych-artifacts \
		$(DISTRIBUTIONS:=/pyproject.toml) --group pyproject.toml:dev
	for name in $(basename $(notdir $(wildcard tests/locks/*.in))); do \
		$(UV) pip compile $(LOCKING) --output-file tests/locks/$$name.lock tests/locks/$$name.in \
		|| exit 1; done
LOCKING = --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	$(if $(UPGRADE),--upgrade)

build: setup ## build the wheels into dist/
	for package in $(DISTRIBUTIONS); do \
		$(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python \
		--out-dir dist $$package || exit 1; done

up: ## build and start everything with docker compose
	docker compose --profile keystone up --build --detach

down: ## stop what `make up` started; volumes stay
	docker compose --profile keystone down

clean: ## remove environments and caches; what `make run` and `make stack` keep stays
	rm -rf .venv .dev/envs .dev/keystone-template-* dist .pytest_cache .ruff_cache .import_linter_cache \
		.hypothesis .coverage

clean-data: ## remove what `make run` and `make stack` keep: images, artifacts, databases, users
	@$(DEV) $(PYTHON) -m dev.forget
