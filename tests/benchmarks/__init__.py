"""Tests of what benchmarks print and of the grids that they run."""
