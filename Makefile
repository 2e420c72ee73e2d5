# Each target sets up what it needs. Needs Python 3.11 to 3.13 (with venv), git and make; Linux x86-64.
STUDY ?= digits
FIGURE ?= eigenvalues

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
CONFIG = $(if $(filter paper,$(STUDY)),config.yaml,workflow/studies/$(STUDY).yaml)
ifneq (,$(findstring :,$(CURDIR))$(findstring {,$(CURDIR))$(findstring },$(CURDIR)))
$(error $(CURDIR): for Python a colon ends a path, and for Snakemake braces are wildcards; give this folder another name)
endif
ifneq (,$(filter demo study figure config cost publish,$(MAKECMDGOALS)))
ifeq (,$(wildcard $(CONFIG)))
$(error STUDY=$(STUDY): there is no $(CONFIG); there are paper $(sort $(basename $(notdir $(wildcard workflow/studies/*.yaml)))))
endif
endif
# A worker for each core, of one thread; tests are handed out one by one.
PYTEST = OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --dist loadgroup
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: demo study figure config schema cost test test-all lint publish readme bench bench-gpu bench-full clean clean-state help

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /make \1: /p' Makefile

demo: ## the poster's experiments on digits: some 5 minutes on two cores
	@$(MAKE) --no-print-directory study STUDY=digits

study: .venv/ready ## run workflow/studies/STUDY.yaml (paper: config.yaml), then show what it found
	@workflow/run.sh $(CONFIG)

figure: .venv/ready ## draw results/STUDY/figures/FIGURE.pdf and no more than it needs
	@workflow/run.sh $(CONFIG) results/$(STUDY)/figures/$(FIGURE).pdf

config: .venv/ready ## the whole of STUDY, and where each value comes from: a line of its file, or a default
	@PYTHONPATH=src python -m sharpness.stages.config --config $(CONFIG)

schema: .venv/ready ## the JSON schema of a study, for editors that check YAML
	@PYTHONPATH=src python -m sharpness.study.keys

cost: .venv/ready ## what a study will cost on this device, counted and calibrated within a minute, before any of it is run
	@PYTHONPATH=src python -m sharpness.stages.forecast --config $(CONFIG)

test: lint ## lint, types, unit tests, and a small study end to end: five minutes on two cores
	$(PYTEST) -m "not slow"

test-all: lint ## the same with the slow tests: kills, edits, Slurm, a browser, LaTeX, layers and spectra by the thousand
	$(PYTEST) --durations=20 --ignore tests/slurm
	python -m pytest --durations=5 tests/slurm # alone: one cluster takes the ports

lint: .venv/ready ## style, types, and what a package may import
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow benchmarks
	mypy
	PYTHONPATH=src lint-imports

publish: .venv/ready ## keep what is finished of STUDY in version control, run by run; with the last one, verdicts and report
	@PYTHONPATH=src python -m sharpness.stages.publish --config $(CONFIG) --results results/$(STUDY) --snakefile Snakefile

readme: .venv/ready ## what README.md says of the findings, from the published tables
	@PYTHONPATH=src python -m sharpness.report.readme

# What is not done when the time is over, the page names.
spectra = PYTHONPATH=$(CURDIR)/src:$(CURDIR) timeout --signal=INT --kill-after=60 $(1) snakemake --cores 1 --keep-going \
	--snakefile benchmarks/Snakefile --directory results/bench/cache --rerun-incomplete --rerun-triggers mtime \
	--quiet rules host -- $(2) || true

bench: .venv/bench ## what training, a spectrum and the workflow cost, within 75 minutes; more: make bench-full
	PYTHONPATH=src python -m benchmarks.workflow
	PYTHONPATH=src python -m benchmarks.training --minutes 12
	rm -rf results/bench/cache/rows results/bench/cache/logs
	$(call spectra,42m,short)
	PYTHONPATH=src python -m benchmarks.spectrum

bench-gpu: .venv/bench ## the same on a GPU, in minutes
	PYTHONPATH=src python -m benchmarks.gpu

bench-full: .venv/bench ## what `make bench` left out, for hours; what it measured stays
	$(call spectra,600m,full)
	PYTHONPATH=src python -m benchmarks.spectrum --full

clean-state: ## remove the saved states of training runs; those that were stopped begin anew
	rm -rf results/*/state

clean: ## remove the environment and all caches; results stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/ready: requirements.lock
	@test -n "$(PYTHON)" || { echo "make: need Python 3.11 to 3.13 with its venv module; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@touch .venv/ready

.venv/bench: benchmarks/requirements.txt .venv/ready
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement benchmarks/requirements.txt
	@touch .venv/bench
