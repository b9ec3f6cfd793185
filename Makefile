# What a person types. `make help` lists it.
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/installed

.PHONY: help run demo show test again e2e check bench drill lock clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

$(INSTALLED): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

run: $(INSTALLED)  ## the platform, in this terminal
	$(BIN)/dryccd serve

demo: $(INSTALLED)  ## install, push an app, get 200, leave nothing running (KEEP=1 leaves it)
	$(BIN)/dryccd demo $(if $(KEEP),--keep)

show: $(INSTALLED)  ## the whole tour: pushes, a failure, config, scale, rollback, destroy
	$(BIN)/python -m tests.e2e.show

test: $(INSTALLED)  ## all tests
	sh tests/services.sh
	$(BIN)/pytest

again: $(INSTALLED)  ## only the tests that failed last
	$(BIN)/pytest --last-failed --last-failed-no-failures none

e2e: $(INSTALLED)  ## only the tests that start the whole platform
	$(BIN)/pytest -m e2e

check: $(INSTALLED)  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## footprint, push and edge, each beside its anchor
	$(BIN)/python -m bench

drill: $(INSTALLED)  ## what takes longer than CI may: kills under load
	$(BIN)/python -m tests.e2e.drill

lock:  ## resolve the dependencies anew
	$(BIN)/pip-compile --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --strip-extras --allow-unsafe \
		--output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --strip-extras --allow-unsafe \
		--extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean:  ## remove what was made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
