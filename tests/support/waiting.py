"""Waiting for what other processes do."""

import time
from collections.abc import Callable

PATIENCE_S = 1200.0  # until a test that waits counts as failed: far beyond what the busiest machine takes


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Returns when `condition()` holds. Fails if it does not in PATIENCE_S, naming `what` was waited for."""
    until, pause_s = time.monotonic() + PATIENCE_S, 0.001
    while not condition():
        assert time.monotonic() < until, f"waited {PATIENCE_S} s for {what}"
        time.sleep(pause_s)
        pause_s = min(0.1, 2 * pause_s)
