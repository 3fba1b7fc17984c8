"""Each comparison is one script that prints a table; `python -m benchmarks` runs them all."""
