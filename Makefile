# `make` alone lists what can be made. Everything is installed into .venv, from this project's files; what
# tests/clients needs, into .venv-clients; the newest of all dependencies, into .venv-newest; the package as
# users get it, a wheel, into .venv-wheel.
PYTHON ?= python3
BIN := .venv/bin
# of the environment that the target lies in
PIP = $(@D)/bin/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-wheel test-newest test-clients fuzz lint types docs bench format clean

help:  ## list what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

demo: .venv/demo  ## compare eight optimizers on real digits; says where the report is
	$(BIN)/thalweg compare digits

test: .venv/test lint types test-wheel  ## lint, check types, run all tests
	$(BIN)/python -m pytest -n 2

test-all: .venv/test lint types test-wheel  ## the same with every combination of parameters, not every pair
	$(BIN)/python -m pytest -n 2 --all-combinations

test-wheel: .venv-wheel/test  ## what is in the wheel, and what it does without torch, Keras and JAX
	.venv-wheel/bin/python -m pytest tests/wheel

test-newest: .venv-newest/test  ## the tests with the newest of every dependency
	.venv-newest/bin/python -m pytest -n 2

test-clients: .venv-clients/test  ## Lightning, FSDP, Flax and others train with our optimizers as with their own
	.venv-clients/bin/python -m pytest tests/clients

fuzz: .venv/test  ## many hostile inputs, seeded: files, commands, requests, storage moved between steps
	$(BIN)/python -m pytest -n 2 tests/fuzz --rounds $(or $(ROUNDS),2000) --seed $(or $(SEED),0)

lint: .venv/test  ## ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/test  ## mypy, strict
	$(BIN)/mypy

format: .venv/test  ## let ruff mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: .venv/test  ## the documentation, as pages in site/
	$(BIN)/mkdocs build --quiet

bench: .venv/test  ## the figures of the README: needs a quiet machine
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/keras_fit.py
	$(BIN)/python benchmarks/jax_step.py
	$(BIN)/python benchmarks/paths.py
	$(BIN)/python benchmarks/play.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/compare.py

clean:  ## remove what was installed and cached here
	rm -rf .venv .venv-clients .venv-newest .venv-wheel .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/pip .venv-clients/pip .venv-newest/pip .venv-wheel/pip:
	$(PYTHON) -m venv $(@D)
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

.venv/demo: .venv/pip pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[study]'
	@touch $@

.venv/test: .venv/pip pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[study]' --group test
	@touch $@

.venv-clients/test: .venv-clients/pip pyproject.toml constraints.txt constraints-clients.txt
	$(PIP) install --quiet --constraint constraints.txt --constraint constraints-clients.txt \
		--editable '.[torch,keras,jax]' --group clients
	@touch $@

# --upgrade, for an environment that is there already: newest means today's
.venv-newest/test: .venv-newest/pip pyproject.toml constraints-newest.txt
	$(PIP) install --quiet --upgrade --upgrade-strategy eager --constraint constraints-newest.txt \
		--editable '.[study]' --group test
	@touch $@

# pytest's settings, tests and their environment lie outside of the wheel: only what it holds is imported
.venv-wheel/test: .venv-wheel/pip pyproject.toml constraints.txt README.md LICENSE $(shell find src -type f -not -name '*.pyc')
	rm -rf .venv-wheel/dist
	$(PIP) wheel --quiet --no-deps --wheel-dir .venv-wheel/dist .
	$(PIP) install --quiet --constraint constraints.txt "$$(echo .venv-wheel/dist/*.whl)[play]" --group wheel
	$(PIP) install --quiet --no-deps --force-reinstall .venv-wheel/dist/*.whl
	@touch $@
