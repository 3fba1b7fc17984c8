PYTHON_IN_VENV = .venv/bin/python

.PHONY: help setup demo check test test-long coverage bench format clean
help:  ## Print the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup:  ## Install the pinned packages, FFCV and the C++ scan into .venv (every other target does it first)
	@slurm/install.sh dev

demo: setup  ## Run grid.yaml on this machine: two models, dense and pruned, to a leaderboard
	@$(PYTHON_IN_VENV) -m harness.launch grid.yaml || test $$? -eq 3

check: setup  ## Lint, check the format and the types
	@$(PYTHON_IN_VENV) -m ruff check .
	@$(PYTHON_IN_VENV) -m ruff format --check .
	@$(PYTHON_IN_VENV) -m mypy

test: setup  ## Run the tests; as root on Debian or Ubuntu, install the SLURM and the Chromium that they use
	@tests/support/chromium.sh
	@$(PYTHON_IN_VENV) -m pytest -n 4 --dist loadgroup

test-long: setup  ## Run the tests that take an hour: a launch is killed at each of its places; all SLURM tests on 22.05 and 24.11
	@$(PYTHON_IN_VENV) -m pytest -m "long and not slurm"
	@$(PYTHON_IN_VENV) -m pytest -m slurm -n 2 --dist loadgroup tests/slurm
	@TESTCLUSTER_SLURM=24.11 $(PYTHON_IN_VENV) -m pytest -m slurm -n 2 --dist loadgroup tests/slurm

coverage: setup  ## Run the tests and measure which branches of the code they reach
	@$(PYTHON_IN_VENV) -m pytest -n 4 --dist loadgroup --cov --cov-report=term --cov-report=html:build/coverage

bench: setup  ## Measure this machine beside the peers (minutes)
	@$(PYTHON_IN_VENV) -m benchmarks

format: setup  ## Format the code and sort its imports
	@$(PYTHON_IN_VENV) -m ruff check --fix --select I --quiet .
	@$(PYTHON_IN_VENV) -m ruff format .

clean:  ## Remove runs and build products
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .coverage build *.egg-info
