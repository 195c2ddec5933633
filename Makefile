# Every target sets up what it needs first (scripts/bootstrap); once that is current it takes no time.
#   make test ARGS="tests/media -k ring"      PYTHON=python3.12 make setup

PYTHON ?= python3
BOOTSTRAP := $(PYTHON) -m scripts.bootstrap
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo live test lint format extras clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## set this checkout up in .venv: system packages, ROS 2, packages, interfaces
	@$(BOOTSTRAP) run

demo: ## replay a scene through the real nodes, show the timeline, make its report
	@$(BOOTSTRAP) run
	@$(BIN)/minicpmo demo $(ARGS)

live: ## run on this machine's camera, microphone and speaker
	@$(BOOTSTRAP) run
	@$(BIN)/minicpmo live $(ARGS)

# Tests that meet neither a clock nor ROS: they run side by side, one on each core.
SIDE_BY_SIDE := $(addprefix tests/,brains duplex media model nano parity runtime timeline) \
	$(addprefix tests/bench/test_,built.py engines.py llamacpp.py model.py speech.py) \
	$(addprefix tests/replay/test_,calibration.py from_video.py offline.py scene.py) \
	$(addprefix tests/replay/test_report_,html.py png.py turns.py view.py) \
	$(addprefix tests/replay/test_scores_,bag.py latency.py panel.py turns.py)
SLOWEST := --durations=15 --durations-min=4

test: ## run the tests
	@$(BOOTSTRAP) test
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@status=0; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile $(SLOWEST) $(SIDE_BY_SIDE) || status=1; \
	$(BIN)/python -m pytest $(SLOWEST) $(addprefix --ignore=,$(SIDE_BY_SIDE)) || status=1; \
	exit $$status
endif

lint: ## check style and types
	@$(BOOTSTRAP) lint
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check . || status=1; \
	$(BIN)/mypy || status=1; \
	exit $$status

format: ## put the code into the project's format
	@$(BOOTSTRAP) lint
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

extras: ## put every extra that this machine can hold into .venv
	@$(BOOTSTRAP) extras

clean: ## remove the environment and everything built
	rm -rf .venv build dist out *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
