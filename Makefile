VENV ?= .venv
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help

help:
	@echo "make test"

$(VENV)/.stamp: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -c constraints.txt pip setuptools
	$(VENV)/bin/pip install -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@

.PHONY: test
test: $(VENV)/.stamp
	$(VENV)/bin/python -m pytest
