# The house's commands. `make demo` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# --no-compile: most of the training stack is never imported, and compiling it takes as long as a small run.
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt
DEMO_MODEL := HuggingFaceTB/SmolLM2-135M-Instruct

export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test check venv bench pictures docs clean

help: ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

demo: $(VENV)/.train ## train a 135M model with QLoRA DPO and watch it
	@$(BIN)/python -m dpo_trainer.model.hub --fetch $(DEMO_MODEL)
	@out=$$($(BIN)/dpo-daemon start --profile demo --runs-dir runs --json) || exit $$?; \
	run=$$(echo "$$out" | $(BIN)/python -c 'import json, sys; print(json.load(sys.stdin)["path"])'); \
	if [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && [ "$${TERM:-dumb}" != dumb ]; \
	then $(BIN)/dpo-tui attach "$$run"; else $(BIN)/dpo-tui attach --plain "$$run"; fi

test: check ## everything CI runs: the checks and the whole test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: venv ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

venv: $(VENV)/.all ## the training stack, the check tools and the benchmarks' peers

bench: venv ## every benchmark, recorded under benchmarks/results
	@for script in $$(grep -l '__main__' benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script --record || exit 1; done

pictures: venv ## the pictures of the README, from the newest run under runs/ and a log that learned nothing
	$(BIN)/python -m dpo_tui.pictures "$$(ls -d runs/*/ | tail -n 1)" tests/data/seed-fsdp.log docs/pictures

docs: venv ## pages that are written from the code
	$(BIN)/python -m dpo_profiles.describe > docs/profiles.md
	$(BIN)/python benchmarks/parity.py --page > docs/parity.md
	$(BIN)/python benchmarks/plan_points.py --page > docs/plan.md

clean: ## remove what was built; runs are kept
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[train]'
	@touch $@

$(VENV)/.all: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[train,check,bench]'
	@touch $@ $(VENV)/.train
