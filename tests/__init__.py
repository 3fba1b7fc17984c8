"""Tests of the harness, mirroring the tree of the packages they test."""

import os
from pathlib import Path

# Augmentations are compiled once for all tests, not in each folder of data, by each rank.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "numba"))

# Before torch is imported. Several workers share the cores: threads that wait for threads took five times the time of the computation.
os.environ.setdefault("OMP_NUM_THREADS", "1")
