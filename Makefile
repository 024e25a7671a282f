# The only commands of the project, for people and CI alike. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := build/stamp
CORES := $(wildcard gbgw/*.pyx gbgw/*.pxd)
CONSOLE := $(shell find console -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)
SECONDS_EACH ?= 60
RUNS_EACH ?=
TARGETS ?=

.DEFAULT_GOAL := help
.PHONY: help build demo test lint types check fuzz bench wheel docker-check soak format clean

help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

build: $(STAMP)/python $(STAMP)/console ## virtual environment, compiled cores, console

$(STAMP)/basics: tools/check-basics
	@PYTHON=$(PYTHON) tools/check-basics
	@mkdir -p $(STAMP) && touch $@

$(STAMP)/dependencies: $(STAMP)/basics pyproject.toml
	@echo "== installing Python dependencies"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --group dev
	@touch $@

$(STAMP)/python: $(STAMP)/dependencies setup.py $(CORES)
	@echo "== compiling the cores"
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -e .
	@touch $@

$(STAMP)/console: $(STAMP)/basics $(CONSOLE)
	@echo "== building the console"
	@cd console && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build
	@touch $@

demo: build ## the gateway with two simulated cameras on loopback
	@exec $(BIN)/gbgw demo

test: build ## the whole test suite
	@tools/system-packages
	@GBGW_STRICT=1 $(BIN)/python -m pytest

lint: $(STAMP)/python ## ruff and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(STAMP)/python ## mypy --strict, and the stubs against the built cores
	@$(BIN)/mypy
	@$(BIN)/python -m mypy.stubtest gbgw._rtp gbgw._ps gbgw._flv gbgw._fanout gbgw._timeline gbgw._receiver gbgw._webrtc gbgw._load --mypy-config-file pyproject.toml \
	  --allowlist tools/stubtest-allow.txt --ignore-unused-allowlist

check: lint types test ## everything a commit must pass

format: $(STAMP)/python ## apply ruff's formatting and safe fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

fuzz: build ## coverage-guided fuzzing of TARGETS (all), SECONDS_EACH seconds or RUNS_EACH inputs a target
	@tools/system-packages fuzz
	@$(BIN)/python -m pip install -q --disable-pip-version-check atheris
	@$(BIN)/python -m tests.fuzz $(TARGETS) $(if $(RUNS_EACH),--runs=$(RUNS_EACH),--seconds=$(SECONDS_EACH))

bench: build ## pytest-benchmark: core / model and core / FFmpeg ratios
	@$(BIN)/python -m pytest benchmarks -q -o timeout=0 --benchmark-only --benchmark-columns=median,ops,rounds

soak: build ## 1,000 INVITE/BYE cycles, a third of them broken; recordings of 30 s; a million damaged streams
	@GBGW_STRICT=1 $(BIN)/python -m pytest tests/system tests/property -q -m soak -o addopts= -o timeout=0

wheel: build ## a wheel with compiled cores and the built console
	@$(BIN)/python -m build --wheel --no-isolation -o dist

docker-check: ## run the Dockerfile's steps in a root of our own, no container engine
	@tools/docker-check

clean: ## remove everything built
	@rm -rf $(VENV) build dist *.egg-info gbgw/*.so gbgw/*.c gbgw/serve/console console/node_modules console/dist
