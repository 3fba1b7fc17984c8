"""Waiting for what other processes do."""

import time
from collections.abc import Callable

PATIENCE_S = 1200.0  # until a test that waits counts as failed: far beyond what the busiest machine takes


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
    """Returns when `condition()` holds. Fails if it does not in time, naming `what` was waited for."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s for {what}"
        time.sleep(0.1)
