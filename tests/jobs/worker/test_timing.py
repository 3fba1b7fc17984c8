"""The parts of a job that times models; tests/harness/cost/test_timing.py runs one."""

import time
from types import SimpleNamespace

import pytest
import torch

from jobs.worker import timing
from jobs.worker.timing import Clock, Limited, how_many, process_began, prunable_weights
from models.registry import create_model

CPU = SimpleNamespace(device=torch.device("cpu"))


class Ticks(Clock):
    """A clock that a test sets."""

    def __init__(self, *moments: float) -> None:
        self.moments = iter(moments)

    def now(self) -> float:
        return next(self.moments)


def batches(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.zeros(size, 1), torch.zeros(size)) for size in sizes]


def test_an_evaluations_first_batch_waits_for_the_loader_and_does_not_count() -> None:
    limited = Limited(batches(4, 4, 2), Ticks(0.0, 1.0, 1.2, 1.3))
    assert len(list(limited)) == 3 and limited.image_s == pytest.approx(0.3 / 6)


def test_a_single_batch_counts_whole_and_no_batch_is_nothing() -> None:
    alone, none = Limited(batches(4), Ticks(0.0, 1.0)), Limited([], Ticks(0.0))
    assert len(list(alone)) == 1 and alone.image_s == 0.25 and list(none) == [] and none.image_s == 0.0


def test_an_evaluation_ends_when_its_time_is_over() -> None:
    limited = Limited(batches(*[2] * 9), Ticks(0.0, 1.0, 3.0, 5.0, 7.0))
    assert len(list(limited)) == 4 and limited.image_s == pytest.approx((7.0 - 1.0) / 6)


def test_as_many_steps_as_fit_but_some_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SECONDS", 5.0)
    assert [how_many(each_s) for each_s in (10.0, 0.5, 0.001, 0.0)] == [3, 10, 100, 100]


def test_laps_follow_each_other() -> None:
    clock = Clock(CPU)  # type: ignore[arg-type]
    began = clock.last
    assert clock.lap() + clock.lap() == pytest.approx(clock.last - began)


def test_this_process_began_before_now() -> None:
    assert process_began() < time.time()


def test_masks_are_for_the_weights_that_methods_prune() -> None:
    network = create_model("vim_micro", 10, 32, depth=1, dim=8)
    assert 0 < prunable_weights(network) < sum(weight.numel() for weight in network.parameters())
    assert prunable_weights(torch.nn.Linear(3, 2)) == 6 and prunable_weights(torch.nn.LayerNorm(4)) == 0, "biases and norms are not pruned"
