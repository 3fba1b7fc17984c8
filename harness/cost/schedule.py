"""How long jobs take side by side: each waits for its parents and for a free slot, and the first that can start does."""

import heapq
from collections.abc import Collection, Sequence


def makespan(seconds: Sequence[float], parents: Sequence[Collection[int]], slots: int | None) -> float:
    """Seconds until the last job has ended. A free slot takes the first job of the list whose parents have ended, as this machine's queue does.

    seconds, parents: of each job; parents come before their children. slots: jobs at a time; None: all that can run.
    """
    if slots is not None and slots < 1:
        raise ValueError(f"slots must be at least 1, got {slots}")
    missing = [len(set(waits_for)) for waits_for in parents]
    children: list[list[int]] = [[] for _ in seconds]
    for job, waits_for in enumerate(parents):
        for parent in set(waits_for):
            children[parent].append(job)
    ready = [job for job, count in enumerate(missing) if not count]
    running: list[tuple[float, int]] = []  # (end, job)
    now = 0.0
    while ready or running:
        while ready and (slots is None or len(running) < slots):
            job = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[job], job))
        now, _ = running[0]
        while running and running[0][0] <= now:  # all that end now free their slots together
            _, ended = heapq.heappop(running)
            for child in children[ended]:
                missing[child] -= 1
                if not missing[child]:
                    heapq.heappush(ready, child)
    return now
