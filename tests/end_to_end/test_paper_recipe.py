"""A paper's run at the size of digits: a preset with RandAugment, erasing, mixup, cutmix, repeats, LAMB, averages, MESA and a teacher, on two ranks.

It is killed in the middle, and ends in the same weights bit for bit.
"""

import signal
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from harness.launch import OK
from jobs.experiment.records import Record, read_record
from tests.support.commands import command, processes_of, run, wait_for, written
from tests.support.stages import assert_same

STEPS = 5  # of an epoch of 160 images
GRID = """
name: paper
data: {source: synthetic, samples: 200, classes: 4, val_fraction: 0.2}
recipe:
  preset: mambavision_t
  epochs: 3
  warmup_epochs: 1
  cooldown_epochs: 1
  finetune_epochs: 2
  batch_size: 32
  ema: 0.9
  mesa_start: 0.2
  repeated_augment: 2
  distill: {teacher: dense, weight: 0.5, temperature: 2}
models: [{name: mambavision_micro, dim: 8, in_dim: 8, depths: [[1, 1, 2, 2]]}]
pruning: [{method: magnitude, sparsity: 0.5}, {method: dynamic, sparsity: 0.5, interval: 4}]
seeds: [0]
cluster: {kind: local, max_parallel: 1, tasks_per_node: 2, stages_per_job: 9, checkpoint_steps: 2, profile_s: 0.001, profile_batch: 2, cache: CACHE}
"""


@pytest.fixture(autouse=True)
def no_process_is_left(tmp_path: Path) -> "object":
    yield
    left = processes_of(tmp_path)
    for process in left:
        process.kill()
    assert not left


def records(folder: Path) -> dict[str, Record]:
    """Records by pruning label."""
    found = [read_record(path) for path in folder.glob("runs/paper/cells/*/record.json")]
    return {record.pruning: record for record in found}


def exports(folder: Path) -> dict[str, Path]:
    """The exported weights by stage."""
    return {path.parents[1].name: path for path in folder.glob("runs/paper/stages/*/export/model.safetensors")}


def in_mid_epoch(folder: Path) -> bool:
    """True if a checkpoint is there from which a stage goes on within an epoch."""
    return any(int(path.name.removeprefix("step-")) % STEPS for path in folder.glob("runs/paper/stages/*/checkpoints/step-" + "[0-9]" * 9))


def kill_in_the_second_stage(folder: Path) -> None:
    """Launches the grid, and kills launcher and ranks once one stage is done and a checkpoint in the middle of an epoch of the next one is there."""
    launcher = subprocess.Popen(
        command("harness.launch", folder / "grid.yaml"), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(lambda: exports(folder) and in_mid_epoch(folder), launcher)
    for process in processes_of(folder):
        process.send_signal(signal.SIGKILL)
    launcher.communicate()
    assert not records(folder)


@pytest.mark.slow
def test_a_papers_recipe_that_is_killed_ends_in_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    here, there = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (here, there):
        folder.mkdir()
        written(folder, GRID.replace("CACHE", str(tmp_path / "cache")))
    done = run("harness.launch", here / "grid.yaml", cwd=here)
    assert done.returncode == OK, done.stdout + done.stderr
    assert "note: preset mambavision_t: optimizer lamb, lr 0.005" in done.stderr
    kill_in_the_second_stage(there)
    done = run("harness.launch", there / "grid.yaml", cwd=there)
    assert done.returncode == OK, done.stdout + done.stderr
    assert exports(here).keys() == exports(there).keys() and len(exports(here)) == 3
    for stage, path in exports(here).items():
        assert_same(load_file(exports(there)[stage]), load_file(path))
    ours, theirs = records(here), records(there)
    assert {name: record.weights_sha256 for name, record in ours.items()} == {name: record.weights_sha256 for name, record in theirs.items()}
    magnitude, dynamic = ours["magnitude(0.5)"], next(record for name, record in ours.items() if name.startswith("dynamic"))
    assert dynamic.stages[0] == magnitude.stages[0], "the shared dense training teaches both"
    assert magnitude.metrics is not None and dynamic.metrics is not None
    assert magnitude.metrics.val_top1_pruned is not None and dynamic.metrics.val_top1_pruned is None
    assert (magnitude.metrics.epochs, dynamic.metrics.epochs) == (5, 8)
    recipe, data = magnitude.spec["recipe"], magnitude.spec["data"]
    assert (recipe["mesa"], recipe["mixup"], recipe["cutmix"], recipe["auto_augment"]) == (0.5, 0.8, 1.0, "rand-m9-mstd0.5-inc1")
    assert recipe["distill"]["teacher"] == "dense" and data["augment"] == "crop" and data["flip"] is True
    assert magnitude.environment.ranks == 2
