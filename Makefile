# Everything a person does with this project. `make` alone lists the targets.
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu     a CPU build of torch, about 200 MB
#   make test ARGS="tests/core -k conv"                            part of the suite

SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -c

VENV        ?= .venv
PYTHON      ?= python3
TORCH_INDEX ?=
ARGS        ?=
# One more than two processors: tests of whole systems wait more than they compute.
JOBS        ?= 3
PORT        ?= 8000
DASHBOARD_PORT ?= 8080

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
# torch's and torchvision's pins, for the index a person may choose for them.
TORCH_PINS = $(shell grep -E '^torch(vision)?==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help install demo serve test test-fast coverage mutants check docs docs-serve bench bench-service bench-plan chaos zoo browser lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "python3 -m venv failed: apt-get install python3-venv"; exit 1; }
	@echo "Installing into $(VENV): two to five minutes the first time, torch is large."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip setuptools
	$(if $(TORCH_INDEX),$(BIN)/pip install --index-url $(TORCH_INDEX) $(TORCH_PINS))
	$(BIN)/pip install --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[dev]' $(TORCH_PINS) \
	  | grep -vE '^(Requirement already satisfied|  Using cached)'
	@touch $@

install: $(STAMP) ## make .venv with every extra, versions from constraints.txt

demo: $(STAMP) ## start the service, prune ResNet-50 through it, stop it
	$(BIN)/python examples/demo.py

# Both stop together: with the service, or with Ctrl-C.
serve: $(STAMP) ## the service on its embedded default, and the dashboard, in the foreground
	@trap 'kill $$dashboard 2>/dev/null' EXIT; \
	$(BIN)/torchpruner-dashboard --url http://127.0.0.1:$(PORT) --port $(DASHBOARD_PORT) & dashboard=$$!; \
	TORCHPRUNER_LOG_FORMAT=$${TORCHPRUNER_LOG_FORMAT:-console} $(BIN)/torchpruner-service serve --port $(PORT) $(ARGS)

test: $(STAMP) browser ## the whole test suite
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder $(ARGS)

# The contracts of the core alone: what a change of it is tried against first.
test-fast: $(STAMP) ## the core's contracts, under 90 s
	$(BIN)/python -m pytest -n $(JOBS) -q -m "not slow and not browser" tests/core/analysis tests/core/coupling tests/core/operators tests/core/manual $(ARGS)

# Engine, replay, storage and auth: 95 in a hundred lines and branches, or it fails.
COVERED = torchpruner_core/coupling/*,torchpruner_core/analysis/*,torchpruner_core/operators/* \
  torchpruner_core/pruning/* service/torchpruner_service/storage/* service/torchpruner_service/auth/*

coverage: $(STAMP) browser ## the whole suite, with branches counted
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder --cov --cov-branch --cov-report=term:skip-covered $(ARGS)
	@set -f; for area in $(COVERED); do echo "$$area"; $(BIN)/coverage report --include="$$area" --fail-under=95 | tail -1 || failed=1; done; test -z "$$failed"

# Half an hour. What survives is listed last; `mutmut show NAME` shows one.
mutants: $(STAMP) ## mutation tests of the coupling engine, the closure and the slices
	$(BIN)/mutmut run --max-children $(JOBS) && $(BIN)/mutmut results

check: $(STAMP) ## ruff, mypy --strict, import contracts, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

docs: $(STAMP) ## build the documentation into build/site
	$(BIN)/mkdocs build --strict --site-dir build/site

docs-serve: $(STAMP) ## read the documentation at http://127.0.0.1:8001
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

bench: $(STAMP) ## speed beside Torch-Pruning -> build/bench.json
	$(BIN)/python -m benchmarks $(ARGS)

bench-service: $(STAMP) ## the service under load -> build/bench-service.json
	$(BIN)/python -m benchmarks.service $(ARGS)

bench-plan: $(STAMP) ## plans: exactness, latency, time, accuracy -> build/bench-plan.json
	$(BIN)/python -m benchmarks.plans $(ARGS)

chaos: $(STAMP) ## ten minutes of clients while parts die: nothing lost, stuck or wrong -> build/chaos.json
	$(BIN)/python -m benchmarks.chaos $(ARGS)

zoo: $(STAMP) ## every architecture against the oracle -> build/zoo.json
	$(BIN)/python -m benchmarks.zoo $(ARGS)

# The dashboard's tests drive a real browser. Root on Debian gets one; anybody else is told how.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "Installing chromium for the dashboard's tests" \
	       && { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; }; } \
	  || echo "No browser: the dashboard's tests are skipped. To run them: sudo apt-get install chromium"

# Installs the newest releases that pyproject.toml allows into a new environment and pins what came out.
lock: ## write constraints.txt anew
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --upgrade pip setuptools
	build/lock/bin/pip install --quiet -e '.[dev]' $(TORCH_PINS)
	{ sed -n '/^#/p' constraints.txt; build/lock/bin/pip freeze --all --exclude-editable; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## remove everything that make made
	rm -rf $(VENV) build mutants site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
