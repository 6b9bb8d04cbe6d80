# make demo: the main job, and where its figure is.
# make docs: the documentation site, in build/site.
# make test: lint, types, the fast tests, doctests.   make test-all: every test, and the share of lines covered.
# make test SHARE=3/12: the fast tests, and the fourth of twelve shares of the others, as CI does.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
DEMO_OUT ?= runs/demo
WORKERS ?= 2
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --quiet --quick
# Each worker imports all of the tests: what they were compiled to is kept, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs lint test test-all mutations format clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/pliant run --out $(DEMO_OUT) $(DEMO_ARGS)

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.installed

# A link or a name that leads nowhere is an error. The variable silences Material's notice about its successor.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "The site is in build/site: $(BIN)/python -m http.server --directory build/site"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(PYTEST) $(if $(SHARE),-m 'not slow' --share $(SHARE),-m 'not slow and not whole')

test-all: lint
	PLIANT_NOT_COVERED="$$($(BIN)/python -c 'import torch' 2> /dev/null && echo none || echo 'src/pliant/torch/*')" \
		$(PYTEST) -m 'not slow and not whole' --cov=src/pliant --cov-report= --cov-fail-under=95
	$(PYTEST) -m 'not slow and whole'

mutations: $(VENV)/.installed-test
	$(BIN)/python tests/mutations.py

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs build dist .cache .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
