# Each works on a fresh machine, without root, and twice in a row.
#
# make install   the environment, .venv
# make check     while you work: lint, types, every test that starts no Ray, no torchrun and no Airflow
# make test      before you hand in: all of check, and the rest of the tests, two files at a time
# make soak      the kills of make test twenty times over, at random moments
# make lint      formatting, lint, types
# make demo      a corpus from three sites served on this machine, and a training run on it
# make clean     removes caches and out/

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= out/demo
PORT ?= 18780

export RAY_USAGE_STATS_ENABLED = 0
export NO_ALBUMENTATIONS_UPDATE = 1
export HF_HUB_DISABLE_TELEMETRY = 1

# Tests run side by side. Those that start processes of their own wait for them half of the time, so two go well
# together; a file's stay together and in their order, as the longest of them come early.
JOBS ?= auto
ALONE := ray or torchrun or airflow
ALONE_JOBS ?= 2

.PHONY: install demo check test soak lint clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or 3.12 is needed, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2]) if not (3, 11) <= sys.version_info[:2] <= (3, 12) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: install
	@$(BIN)/python -m pipeline.demo --out $(OUT) --port $(PORT)

check: install lint
	$(BIN)/python -m assets fetch --group encoders
	$(BIN)/python -m tests.verdict -q -n $(JOBS) --dist worksteal -m 'not slow and not ($(ALONE))'

test: install lint
	$(BIN)/python -m assets fetch --group encoders
	$(BIN)/python -m tests.verdict -n $(JOBS) --dist worksteal -m 'not ($(ALONE))'
	$(BIN)/python -m tests.verdict -n $(ALONE_JOBS) --dist loadfile --no-loadscope-reorder -m '$(ALONE)'

soak: install
	INTERLOOM_KILLS=20 $(BIN)/python -m tests.verdict tests/end_to_end/test_kills.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf out .cache
