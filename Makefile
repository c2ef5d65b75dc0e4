# The one list of commands. They run in the environment that is active: pip install -e '.[dev]' first.
.DEFAULT_GOAL := help
.PHONY: help lint format types imports docs docs-serve test proof nightly ci all

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lint:  ## rules of ruff, and its format
	ruff check .
	ruff format --check .

format:  ## mend what ruff can mend
	ruff check --fix .
	ruff format .

types:  ## mypy, strict
	mypy

imports:  ## the layers and the pure ring
	lint-imports

docs:  ## the documentation, into site/: needs pip install -e '.[docs]'
	python scripts/commands_page.py
	mkdocs build --strict

docs-serve:  ## the documentation at 127.0.0.1:8000, anew at each change
	mkdocs serve --strict

test:  ## the tests of every change
	pytest

proof:  ## determinism and faults alone, with a table of what holds: under 5 minutes
	pytest -q -m proof

nightly:  ## all tests, with many more examples: takes long
	HYPOTHESIS_PROFILE=nightly pytest

ci:  ## what CI runs, in a fresh environment
	.ci/run

all: lint types imports test  ## lint, types, imports and test
