# Two commands do everything: `make serve` and `make test`. Both are quick the second time.
SHELL := /bin/bash
PY    := .venv/bin/python
export PYTHONSAFEPATH := 1
# Compiled once, not once in each process of a test run.
export PYTHONDONTWRITEBYTECODE :=

MODEL ?= smollm2-135m
PORT  ?= 8000

.PHONY: serve test test-slow fuzz test-vllm lint bench wheel clean

serve: .venv/.serve ## Pull the model and serve it on 127.0.0.1:8000
	.venv/bin/elision serve --model $(MODEL) --port $(PORT)

test: lint .venv/.pulled ## Everything but the tests marked slow or vllm
	$(PY) -m pytest -q -n 2 --dist loadfile -m "not slow and not vllm"

test-slow: .venv/.pulled .venv-clients/.made ## The tests marked slow
	ELISION_REQUIRE_CLIENTS=1 $(PY) -m pytest -q -n 2 --dist loadfile -m "slow and not vllm"

fuzz: .venv/.dev ## 2,000 requests made out of the gateway's own description
	ELISION_FUZZ_CASES=2000 $(PY) -m pytest -q tests/middleware/gateway/test_fuzz.py

test-vllm: .venv/.pulled .venv-vllm/.ready ## The tests marked vllm, against a real one on the CPU
	ELISION_REQUIRE_VLLM=1 $(PY) -m pytest -q -m vllm tests/vllm

lint: .venv/.dev
	.venv/bin/ruff format --check src tests examples
	.venv/bin/ruff check src tests examples
	.venv/bin/mypy
	.venv/bin/pyright
	.venv/bin/lint-imports

bench: .venv/.dev .venv/.pulled ## Measure every figure and rewrite this machine's table
	.venv/bin/elision bench all --write docs/benchmarks.md

wheel: .venv/.dev ## Build the wheel and run the fast tests against it, without src/
	.ci/wheel

clean:
	rm -rf .venv .venv-clients dist build

.venv/bin/python:
	python3 -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade pip

.venv/.serve: .venv/bin/python pyproject.toml constraints.txt
	$(PY) -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e '.[local,serve]'
	touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv-vllm/.ready: .ci/vllm.txt
	python3 -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r .ci/vllm.txt
	touch $@

.venv/.pulled: .venv/.dev
	.venv/bin/elision pull smollm2-135m
	.venv/bin/elision pull all-minilm-l6-v2
	touch $@

.venv-clients/.made: .ci/clients.txt .ci/clients-openai3.txt ## Other people's clients, which some slow tests run
	python3 -m venv .venv-clients
	python3 -m venv .venv-clients/openai3
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r .ci/clients.txt
	.venv-clients/openai3/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r .ci/clients-openai3.txt
	touch $@
