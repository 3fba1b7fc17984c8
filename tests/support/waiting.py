"""Waiting for what other processes do."""

import time
from collections.abc import Callable

SHORTEST_S, LONGEST_S = 0.001, 0.5  # between two looks
PATIENCE_S = 1200.0  # until a test that waits counts as failed: far beyond what the busiest machine takes


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Returns when `condition()` holds. Fails if it does not in PATIENCE_S, naming `what` was waited for. What takes long is looked at less often."""
    began = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began
        assert waited_s < PATIENCE_S, f"waited {PATIENCE_S} s for {what}"
        time.sleep(min(LONGEST_S, max(SHORTEST_S, waited_s / 20)))
