"""Trainings with every augmentation on: killed in the middle of an epoch, on two ranks, fed by either loader."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.data.loaders import TrainLoader
from jobs.data.prepare import prepare
from jobs.experiment.ids import StageId
from jobs.experiment.specs import ClusterSpec, DataSpec, ModelSpec, RecipeSpec, StageSpec
from jobs.parallel.engine import rendezvous
from jobs.train.stage import train_stage
from models.pruning.base import Stage
from tests.support.processes import finish_ranks, run_ranks, start_ranks
from tests.support.stages import assert_same, lines, weights

STEPS, LAST = 13, 9  # of an epoch; the step of the second epoch that is killed, two after a checkpoint
RECIPE = RecipeSpec(
    epochs=2,
    batch_size=16,
    ema=0.9,
    auto_augment="rand-m9-mstd0.5-inc1",
    random_erase=0.5,
    random_erase_count=2,
    mixup=0.8,
    cutmix=1.0,
    mixup_mode="pair",
    repeated_augment=3,
)


def train(folder: Path, loader: str = "ffcv", micro: int | None = None) -> None:
    data = DataSpec(source="synthetic", samples=240, classes=4, img_size=16, loader=loader, augment="crop", flip=True, interpolation="bicubic")
    recipe = RecipeSpec(**{**vars(RECIPE), "micro_batch_size": micro})
    model = ModelSpec(name="vim_micro", options={"depth": 1, "dim": 32}, label="vim_micro")
    spec = StageSpec(id=StageId("augmented"), model=model, data=data, recipe=recipe, seed=3, stage=Stage(name="train", epochs=2))
    ranks = rendezvous(threads=1)
    dataset = prepare(data, folder.parent / "cache")
    train_stage(spec, dataset, folder, parent=None, rewind=None, ranks=ranks, cluster=ClusterSpec(checkpoint_steps=5))


def kill_in_mid_epoch() -> None:
    """The process dies by SIGKILL when a step in the middle of the second epoch asks for its images."""
    whole = TrainLoader.epoch

    def epoch(self: TrainLoader, number: int, first_step: int = 0) -> Iterator[Any]:
        micro_batches = self._shape[1]
        for index, batch in enumerate(whole(self, number, first_step)):
            if number == 1 and first_step + index // micro_batches == LAST:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    TrainLoader.epoch = epoch  # type: ignore[assignment, method-assign]


def train_and_die(folder: Path) -> None:
    """Trains undisturbed, with the other loader and with smaller micro-batches; then again, up to the kill."""
    train(folder / "undisturbed")
    train(folder / "torch", "torch")
    train(folder / "small", micro=2)
    kill_in_mid_epoch()
    train(folder / "killed")


def train_on(folder: Path) -> None:
    """Goes on where `train_and_die` left."""
    train(folder / "killed")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    ends = finish_ranks(start_ranks("tests.end_to_end.test_augmented_training:train_and_die", 2, folder), folder)
    assert [status for status, _ in ends] == [-signal.SIGKILL] * 2, "\n".join(output for _, output in ends)
    return folder


@pytest.mark.slow
def test_a_training_that_was_killed_in_mid_epoch_ends_in_the_same_weights_bit_for_bit(killed: Path) -> None:
    last = sorted(path.name for path in (killed / "killed" / "checkpoints").iterdir())[-1]
    assert last == f"step-{STEPS + LAST - 2:09d}", "a checkpoint in mid-epoch"
    run_ranks("tests.end_to_end.test_augmented_training:train_on", 2, killed)
    assert_same(weights(killed / "killed"), weights(killed / "undisturbed"))
    assert lines(killed / "killed") == lines(killed / "undisturbed")


@pytest.mark.slow
def test_the_loader_does_not_matter_and_micro_batches_do_by_rounding_alone(killed: Path) -> None:
    assert_same(weights(killed / "torch"), weights(killed / "undisturbed"))
    for name, weight in weights(killed / "undisturbed").items():
        torch.testing.assert_close(weights(killed / "small")[name], weight, rtol=1e-2, atol=1e-3)
