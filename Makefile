# `make help` lists the targets. Everything is made in .venv and build/; `make clean` removes both.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TARGET := build/target
PHOENIX := build/phoenix
OUT ?= build/demo
NAME ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup ## measure the real OpenTalking on loopback and print its result template
	@rm -rf $(OUT)
	$(BIN)/talkscope bench --start demo --tester demo --out $(OUT)

.PHONY: test
test: setup tools gcc ## lint, type-check and run all tests, end to end included
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile -m "not alone"
	$(BIN)/pytest -m alone

.PHONY: check-stack
check-stack: setup tools gcc ## check the stack's files, dashboards and alerts; needs no container engine
	@$(BIN)/python -m tests.check_stack

.PHONY: check-traces
check-traces: setup tools ## find a turn's trace in a real OTLP backend (installs Arize Phoenix, 1 GB)
	@test -x $(PHOENIX)/bin/phoenix || { $(PYTHON) -m venv $(PHOENIX) && $(PHOENIX)/bin/pip install -q arize-phoenix==20.26.1; }
	@$(BIN)/python -m tests.check_traces $(PHOENIX)/bin/phoenix

.PHONY: screenshots
screenshots: setup tools gcc ## draw the dashboards of a run into docs/screenshots (needs Node.js 20 and npm)
	@$(BIN)/python -m tests.screenshots

.PHONY: bench
bench: setup gcc ## run the benchmarks of tests/bench, or one: make bench NAME=bench-cost
	$(BIN)/python -m tests.bench $(NAME)

SECRETS := grafana_admin_password ingest_token
.PHONY: secrets
secrets: ## write random secrets for compose.yaml into secrets/, unless they are there
# Readable for the users inside the containers; the folder keeps other users of this machine out.
	@mkdir -p -m 700 secrets
	@for name in $(SECRETS); do \
	  test -s secrets/$$name && continue; \
	  head -c 24 /dev/urandom | base64 | tr '+/' '-_' > secrets/$$name && chmod 444 secrets/$$name && \
	  echo "secrets/$$name written"; \
	done

.PHONY: setup
setup: $(VENV)/stamp target ## install everything, without running anything

$(VENV)/stamp: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "Talkscope needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d: make PYTHON=python3.13 ..." % v)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	@echo "setup: Talkscope's own environment in $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: target
target: # the real OpenTalking and OmniRT, each in its own environment; does nothing when they are there
	@$(PYTHON) deploy/demo/install.py --root $(TARGET)

.PHONY: tools
tools: # programs that the tests run beside the target: a bus, a clock that can be set, a scraper, a browser
	@for tool in redis-server faketime prometheus prometheus-alertmanager chromium; do \
	  command -v $$tool >/dev/null && continue; \
	  echo "setup: installing $$tool"; \
	  apt-get install -y -qq --no-install-recommends $$tool >/dev/null 2>&1 || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends $$tool >/dev/null; } || \
	  { echo "the tests need $$tool: apt-get install $$tool" >&2; exit 1; }; \
	done

.PHONY: gcc
gcc: # the tests build a stand-in for NVIDIA's management library
	@echo 'int main(void) { return 0; }' | gcc -xc -include stdio.h -o /dev/null - 2>/dev/null || { \
	  echo "setup: installing gcc"; \
	  apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null 2>&1 || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null; } || \
	  { echo "the tests need gcc: apt-get install gcc libc6-dev" >&2; exit 1; }; }

.PHONY: format
format: $(VENV)/stamp ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: docs
docs: $(VENV)/stamp ## make the generated pages of docs/ again
	$(BIN)/python -m exporter.reference docs

.PHONY: lock
lock: ## resolve requirements/*.txt again (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --extra exporter --extra loadgen --group dev pyproject.toml -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --extra exporter -c requirements/dev.txt pyproject.toml -o requirements/exporter.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --extra loadgen -c requirements/dev.txt pyproject.toml -o requirements/loadgen.txt

.PHONY: clean
clean: ## remove everything that was made
	rm -rf $(VENV) build
