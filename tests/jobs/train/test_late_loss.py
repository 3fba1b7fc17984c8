"""Losses that are read one step late: the same numbers, and the same step at which a training has diverged."""

import math
from typing import Any

import pytest
import torch

import jobs.train.late_loss
from jobs.train.late_loss import Diverged, HostCopy, UnreadStep
from models.pruning.base import Stage
from tests.support.networks import Halve, ToyBatches
from tests.support.one_stage import one_rank
from tests.support.stages import dense, lines, stage_run, train


def step_of(loss: float, norm: float | torch.Tensor | None) -> UnreadStep:
    return UnreadStep.of(torch.tensor(loss, dtype=torch.float64), norm, "epoch 1 of 2, step 3 of 8")


@pytest.mark.parametrize("norm", [None, 0.0, 2.5, torch.tensor(2.5), torch.tensor([2.5])])
def test_a_finite_loss_is_the_number_itself(norm: Any) -> None:
    assert step_of(0.1, norm).loss(None) == 0.1


@pytest.mark.parametrize(
    ("loss", "norm", "message"),
    [
        (math.nan, 1.0, "the loss is nan at epoch 1 of 2, step 3 of 8; the last finite one was 0.5"),
        (math.inf, math.nan, "the loss is inf at epoch 1 of 2, step 3 of 8"),
        (0.1, math.inf, "the gradient is not finite at epoch 1 of 2, step 3 of 8; loss 0.1"),
        (0.1, torch.tensor(math.nan), "the gradient is not finite"),
        (0.1, -1.0, "the gradient is not finite"),  # DeepSpeed's word
    ],
)
def test_what_is_not_finite_is_named_with_the_step_that_it_came_from(loss: float, norm: Any, message: str) -> None:
    with pytest.raises(Diverged, match=message):
        step_of(loss, norm).loss(0.5)


class PlayedEvent:
    """A CUDA event that notes when it is waited for."""

    calls: list[str] = []

    def record(self) -> None:
        self.calls.append("record")

    def synchronize(self) -> None:
        self.calls.append("wait")


def test_on_a_gpu_the_copy_is_queued_at_once_and_waited_for_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", PlayedEvent)
    monkeypatch.setattr(jobs.train.late_loss.torch, "empty_like", lambda numbers, device, pin_memory: torch.zeros(2, dtype=torch.float64))
    PlayedEvent.calls.clear()

    class OnGpu(torch.Tensor):
        device = torch.device("cuda", 0)

    copy = HostCopy(torch.tensor([1.0, 2.0], dtype=torch.float64).as_subclass(OnGpu))
    assert PlayedEvent.calls == ["record"]
    assert copy.read() == [1.0, 2.0] and PlayedEvent.calls == ["record", "wait"]


@pytest.mark.parametrize("stage", [dense(2), dense(2, method=Halve())], ids=["dense", "method"])
@pytest.mark.parametrize(("step", "position"), [(0, "step 1 of 8"), (1, "step 2 of 8"), (3, "step 4 of 8")])
def test_a_stage_diverges_at_the_step_whose_loss_is_not_finite(tmp_path: Any, stage: Stage, step: int, position: str) -> None:
    """The third is the last of its epoch; a checkpoint after it would hold weights that are not finite."""

    def poisoned(batch: int, micro: int, ranks: Any) -> ToyBatches:
        return ToyBatches(batch, micro, ranks, poison=(step, 0))

    trainer = stage_run(tmp_path, stage, one_rank(), batches=poisoned)  # type: ignore[arg-type]
    with pytest.raises(Diverged, match=f"the loss is nan at epoch 1 of 2, {position}"):
        trainer.run(None, None)
    trainer.network.engine.close()
    assert not list(tmp_path.glob("checkpoints/*"))


def test_no_loss_is_read_before_the_next_step_has_begun(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads fall behind the next backward pass, but for the last one of an epoch, which validation waits for."""
    events: list[str] = []
    read = HostCopy.read
    monkeypatch.setattr(HostCopy, "read", lambda self: [events.append("read"), read(self)][1])
    trainer = stage_run(tmp_path, dense(1), one_rank())
    backward, update = trainer.backward, trainer.network.engine.update
    monkeypatch.setattr(trainer, "backward", lambda batches: [events.append("backward"), backward(batches)][1])
    monkeypatch.setattr(trainer.network.engine, "update", lambda lr: [events.append("update"), update(lr)][1])
    trainer.run(None, None)
    trainer.network.engine.close()
    assert events == "backward update backward read update backward read update backward read update read".split()


def test_the_sums_are_those_of_losses_read_at_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "late", dense(2))
    monkeypatch.setattr("jobs.train.stage_trainer.StageTrainer.is_read_at_once", lambda self: True)
    train(tmp_path / "at once", dense(2))
    assert lines(tmp_path / "late") == lines(tmp_path / "at once")
