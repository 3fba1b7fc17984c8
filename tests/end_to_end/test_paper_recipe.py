"""A paper's run at the size of digits: a preset with RandAugment, erasing, mixup, cutmix, repeats, LAMB, averages, MESA and a teacher, on two ranks.

It is killed in the middle, and ends in the same weights bit for bit.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from harness.grid.read import read_grid
from harness.launch import OK, main
from harness.prepare import main as prepare
from jobs.experiment.records import Record, read_record
from jobs.experiment.run_folder import RunFolder
from jobs.train.stage_trainer import StageTrainer
from jobs.worker.job import run_job
from tests.support.commands import written
from tests.support.jobs import jobs_of
from tests.support.processes import finish_ranks, run_ranks, start_ranks
from tests.support.stages import assert_same

STEPS, LAST = 3, 5  # of an epoch of 96 images; the step before which the ranks die, one after a checkpoint in mid-epoch
GRID = """
name: paper
data: {source: synthetic, samples: 120, classes: 4, img_size: 16, val_fraction: 0.2}
recipe:
  preset: mambavision_t
  epochs: 2
  warmup_epochs: 1
  cooldown_epochs: 1
  finetune_epochs: 1
  batch_size: 32
  ema: 0.9
  mesa_start: 0.2
  repeated_augment: 2
  distill: {teacher: dense, weight: 0.5, temperature: 2}
models: [{name: mambavision_micro, dim: 8, in_dim: 8, depths: [[1, 1, 2, 2]]}]
pruning: [{method: magnitude, sparsity: 0.5}, {method: dynamic, sparsity: 0.5, interval: 2}]
seeds: [0]
cluster: {kind: local, max_parallel: 1, tasks_per_node: 2, stages_per_job: 9, checkpoint_steps: 2, profile_s: 0.001, profile_batch: 2, cache: CACHE}
"""


def work(folder: Path) -> None:
    """Run by both ranks: the one job of the grid."""
    ((job,), _) = jobs_of(read_grid(folder / "grid.yaml"), run_of(folder))
    run_job(job)


def work_and_die(folder: Path) -> None:
    """The same, until both ranks are killed in the middle of an epoch."""
    backward = StageTrainer.backward

    def kill(self: StageTrainer, batches: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        if self.state.step == LAST:
            os.kill(os.getpid(), signal.SIGKILL)
        return backward(self, batches)

    StageTrainer.backward = kill  # type: ignore[method-assign]
    work(folder)


def run_of(folder: Path) -> RunFolder:
    return RunFolder(folder / "runs" / "paper")


def records(folder: Path) -> dict[str, Record]:
    """Records by method."""
    found = [read_record(path) for path in run_of(folder).record_paths()]
    return {str(record.spec["pruning"]["method"]): record for record in found}


def stage_of(record: Record) -> str:
    """The stage that a cell ends with."""
    return record.stages[-1]


@pytest.mark.slow
def test_a_papers_recipe_that_is_killed_ends_in_the_same_weights_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = tmp_path / "undisturbed", tmp_path / "killed"
    here.mkdir()
    grid = str(written(here, GRID.replace("CACHE", str(tmp_path / "cache"))))
    assert prepare([grid]) == 0 and main([grid, "--dry-run"]) == OK
    assert "note: preset mambavision_t: optimizer lamb, lr 0.005" in capsys.readouterr().err
    run_ranks("tests.end_to_end.test_paper_recipe:work", 2, here)
    found = records(here)
    magnitude, dynamic = found["magnitude"], found["dynamic"]
    shutil.copytree(here, there)
    shutil.rmtree(run_of(there).stage_dir(stage_of(dynamic)))
    shutil.rmtree(run_of(there).record_path(dynamic.id).parent)
    ends = finish_ranks(start_ranks("tests.end_to_end.test_paper_recipe:work_and_die", 2, there), there)
    assert [status for status, _ in ends] == [-signal.SIGKILL] * 2, "\n".join(output for _, output in ends)
    checkpoints = run_of(there).stage_dir(stage_of(dynamic)) / "checkpoints"
    assert max(path.name for path in checkpoints.iterdir()) == f"step-{LAST - 1:09d}" and (LAST - 1) % STEPS
    run_ranks("tests.end_to_end.test_paper_recipe:work", 2, there)
    ours, theirs = (load_file(run_of(folder).export_dir(stage_of(dynamic)) / "model.safetensors") for folder in (here, there))
    assert_same(theirs, ours)
    assert {name: record.weights_sha256 for name, record in records(there).items()} == {name: record.weights_sha256 for name, record in found.items()}
    assert dynamic.stages[0] == magnitude.stages[0], "the shared dense training teaches both"
    assert magnitude.metrics is not None and dynamic.metrics is not None
    assert magnitude.metrics.val_top1_pruned is not None and dynamic.metrics.val_top1_pruned is None
    assert (magnitude.metrics.epochs, dynamic.metrics.epochs) == (3, 5)
    recipe, data = magnitude.spec["recipe"], magnitude.spec["data"]
    assert (recipe["mesa"], recipe["mixup"], recipe["cutmix"], recipe["auto_augment"]) == (0.5, 0.8, 1.0, "rand-m9-mstd0.5-inc1")
    assert recipe["distill"]["teacher"] == "dense" and data["augment"] == "crop" and data["flip"] is True
    assert magnitude.environment.ranks == 2
