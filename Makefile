# Each target sets up what it needs. Needs Python 3.11 to 3.13 (with venv), git and make; Linux x86-64.
STUDY ?= digits
FIGURE ?= eigenvalues

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
# The command finds a study by its name; here a typo ends before the environment is made.
CONFIG = $(if $(filter paper,$(STUDY)),config.yaml,$(STUDY) $(STUDY).yaml examples/$(STUDY).yaml workflow/studies/$(STUDY).yaml)
SHARPNESS = SHARPNESS_CALLED=.venv/bin/sharpness PYTHONPATH=src python -m sharpness
ifneq (,$(findstring :,$(CURDIR))$(findstring {,$(CURDIR))$(findstring },$(CURDIR)))
$(error $(CURDIR): for Python a colon ends a path, and for Snakemake braces are wildcards; give this folder another name)
endif
ifneq (,$(filter demo study figure config cost publish,$(MAKECMDGOALS)))
ifeq (,$(wildcard $(CONFIG)))
$(error STUDY=$(STUDY): there is no $(lastword $(CONFIG)); there are paper $(sort $(basename $(notdir $(wildcard workflow/studies/*.yaml)))))
endif
endif
# A worker for each core, of one thread; tests are handed out one by one.
PYTEST = OMP_NUM_THREADS=1 python -m pytest --numprocesses auto
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: demo study figure config schema cost test test-all lint publish readme findings docs bench bench-gpu clean clean-state help

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /make \1: /p' Makefile

demo: ## the poster's experiments on digits: some five minutes on two recent cores
	@$(MAKE) --no-print-directory study STUDY=digits

study: .venv/ready ## run a study (paper: config.yaml), then show what it found
	@$(SHARPNESS) run $(STUDY)

figure: .venv/ready ## draw results/STUDY/figures/FIGURE.pdf and no more than it needs
	@$(SHARPNESS) run $(STUDY) results/$(notdir $(basename $(STUDY)))/figures/$(FIGURE).pdf

config: .venv/ready ## the whole of STUDY, and where each value comes from: a line of its file, or a default
	@$(SHARPNESS) show $(STUDY) --settings

schema: .venv/ready ## the JSON schema of a study, for editors that check YAML
	@PYTHONPATH=src python -m sharpness.study.keys

cost: .venv/ready ## what a study will cost on this device, counted and calibrated, before any of it is run
	@$(SHARPNESS) cost $(STUDY)

test: lint ## lint, types, unit tests, and a small study end to end: five minutes on two cores
	$(PYTEST) -m "not slow"

test-all: lint ## the same with the slow tests: kills, edits, Slurm, a browser, LaTeX, layers and spectra by the thousand
	@# Slurm's alone: one cluster takes the ports.
	@shared=$$(mktemp -d) && trap 'rm -rf "$$shared"' EXIT && export SHARED_BY_TESTS="$$shared" && set -x && \
	$(PYTEST) --durations=20 --ignore tests/slurm && python -m pytest --durations=5 tests/slurm

lint: .venv/ready ## style, types, and what a package may import
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow benchmarks
	mypy
	PYTHONPATH=src lint-imports

publish: .venv/ready ## keep what is finished of STUDY in version control, run by run; with the last one, verdicts and report
	@$(SHARPNESS) publish $(STUDY)

readme findings: .venv/ready ## docs/findings.md, and the costs in docs/benchmarks.md, from the published tables
	@PYTHONPATH=src python -m sharpness.report.findings
	@PYTHONPATH=src python -m benchmarks.in_short

docs: .venv/docs ## the documentation as a site in site/, which needs no network; warnings are errors
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

BENCH = snakemake --cores all --keep-going --snakefile benchmarks/Snakefile --directory results/bench/cache \
	--rerun-incomplete --rerun-triggers mtime --quiet rules host --
bench: .venv/bench ## what training, a spectrum and the workflow cost, in 60 minutes on an idle machine
	PYTHONPATH=src python -m benchmarks.workflow --minutes 9
	PYTHONPATH=src python -m benchmarks.training --minutes 6
	PYTHONPATH=src python -m benchmarks.tracking --minutes 4
	rm -rf results/bench/cache/rows results/bench/cache/logs
	@# What is not done when the time is over, the page names.
	-PYTHONPATH=$(CURDIR)/src:$(CURDIR) timeout --signal=INT --kill-after=60 16m $(BENCH) larger
	-PYTHONPATH=$(CURDIR)/src:$(CURDIR) timeout --signal=INT --kill-after=60 24m $(BENCH)
	PYTHONPATH=src python -m benchmarks.larger
	PYTHONPATH=src python -m benchmarks.spectrum
	PYTHONPATH=src python -m benchmarks.in_short

bench-gpu: .venv/bench ## the same on a GPU, in minutes
	PYTHONPATH=src python -m benchmarks.gpu

clean-state: ## remove the saved states of training runs; those that were stopped begin anew
	rm -rf results/*/state

clean: ## remove the environment and all caches; results stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

# With CPU=1, torch's build for CPUs, from an index that has it; the other packages have their hashes either way.
TORCH = $(shell sed -n 's/^torch\(vision\)*==\([^ ]*\).*/torch\1==\2+cpu/p' requirements.lock)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP = .venv/bin/python -m pip install --disable-pip-version-check
.venv/ready: requirements.lock
	@test -n "$(PYTHON)" || { echo "make: need Python 3.11 to 3.13 with its venv module; name one: make PYTHON=/path/to/python" >&2; exit 1; }
ifdef CPU
	@echo "Setting up .venv once, with torch for CPUs: 0.5 GB to fetch and 1.9 GB on disk."
else
	@echo "Setting up .venv once: 3.3 GB to fetch and 6.4 GB on disk, since PyPI's torch brings CUDA along."
	@echo "Without a GPU, 0.5 GB will do, by one variable, as in: make CPU=1 demo"
endif
	$(PYTHON) -m venv --clear .venv
ifdef CPU
	@awk '/^[a-z]/ { keep = !/^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ } keep' requirements.lock > .venv/cpu.lock
	$(PIP) --no-deps --extra-index-url $(TORCH_INDEX) $(TORCH) || \
		{ echo "make: $(TORCH_INDEX) has no $(TORCH); name another TORCH_INDEX, or leave CPU=1 out" >&2; exit 1; }
	$(PIP) --no-deps --require-hashes --requirement .venv/cpu.lock
else
	$(PIP) --require-hashes --requirement requirements.lock
endif
	$(PIP) --quiet --no-deps --no-build-isolation --editable .
	@touch .venv/ready

.venv/bench: benchmarks/requirements.txt .venv/ready
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement benchmarks/requirements.txt
	@touch .venv/bench

.venv/docs: docs/requirements.txt .venv/ready
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement docs/requirements.txt
	@touch .venv/docs
