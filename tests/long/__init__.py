"""Tests that take minutes to hours each: `make test-long` runs them, `make test` does not."""
