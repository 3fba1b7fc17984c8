# A newcomer needs `make demo` and `make test`; both install what is missing first.
PYTHON_IN_VENV = .venv/bin/python

.PHONY: demo test bench setup clean
setup:
	@slurm/install.sh test

demo: setup
	@$(PYTHON_IN_VENV) -m harness.launch grid.yaml || test $$? -eq 3

test: setup
	@$(PYTHON_IN_VENV) -m pytest -n 3 --dist loadgroup

bench: setup
	@$(PYTHON_IN_VENV) -m benchmarks

clean:
	rm -rf runs .pytest_cache build *.egg-info
