# make install | demo | test | lint. Each works on a fresh machine, without root, and twice in a row.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= out/demo
PORT ?= 18780

export RAY_USAGE_STATS_ENABLED = 0
export NO_ALBUMENTATIONS_UPDATE = 1
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: install demo test lint clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or 3.12 is needed, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2]) if not (3, 11) <= sys.version_info[:2] <= (3, 12) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: install
	@$(BIN)/python -m pipeline.demo --out $(OUT) --port $(PORT)

test: install lint
	$(BIN)/python -m assets fetch --group encoders
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf out .pytest_cache .mypy_cache .ruff_cache .hypothesis
