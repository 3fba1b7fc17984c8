"""Jobs side by side, against a clock that ticks second by second."""

from collections.abc import Collection, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cost.schedule import makespan


def ticked(seconds: Sequence[int], parents: Sequence[Collection[int]], slots: int | None) -> int:
    """The same queue, one second after the other."""
    left, waiting, running, clock = dict(enumerate(seconds)), list(range(len(seconds))), list[int](), 0
    while waiting or running:
        for job in [job for job in waiting if not any(parent in left for parent in parents[job])]:
            if slots is None or len(running) < slots:
                waiting.remove(job)
                running.append(job)
        if any(not left[job] for job in running):  # those of no length end at once
            pass
        else:
            clock += 1
            for job in running:
                left[job] -= 1
        for job in [job for job in running if not left[job]]:
            running.remove(job)
            del left[job]
    return clock


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[int], list[set[int]], int | None]:
    seconds = draw(st.lists(st.integers(0, 6), max_size=9))
    parents = [set(draw(st.lists(st.integers(0, job - 1), max_size=2))) if job else set() for job in range(len(seconds))]
    return seconds, parents, draw(st.none() | st.integers(1, 4))


@given(plans())
def test_the_end_is_that_of_a_queue_that_ticks(plan: tuple[list[int], list[set[int]], int | None]) -> None:
    assert makespan(*plan) == ticked(*plan)


def test_hand_made_plans() -> None:
    assert makespan([], [], 1) == 0
    assert makespan([3, 1, 1, 1], [(), (), (), ()], 2) == 3
    assert makespan([3, 5, 2], [(), {0}, {0}], None) == 8 and makespan([3, 5, 2], [(), {0}, {0}], 1) == 10


def test_no_slot_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        makespan([1], [()], 0)
