from dataclasses import replace
from pathlib import Path

import torch

from jobs.parallel.engine import Ranks
from jobs.train.exports import StageResult
from jobs.worker.cell import describe_cell, path_costs, pruned_top1
from tests.support.cell_folders import data_of, record_of
from tests.support.cells import make_cell

TRUNK = StageResult(
    val_top1=90.0,
    val_loss=0.3,
    train_loss=0.2,
    steps=10,
    epochs=12,
    train_s=3600.0,
    train_img_per_s=250.0,
    sparsity=0.0,
    joules=1000.0,
    peak_memory_bytes=700,
)
TUNED = replace(TRUNK, epochs=4, train_s=1800.0, train_img_per_s=200.0, joules=500.0, peak_memory_bytes=900)


def ranks(device: str) -> Ranks:
    return Ranks(rank=0, local_rank=0, world=2, device=torch.device(device))


def test_the_whole_path_is_counted_on_every_core() -> None:
    costs = path_costs([TRUNK, TUNED], ranks("cpu"), threads=4)
    assert (costs.epochs, costs.train_s, costs.train_cpu_h, costs.train_gpu_h) == (16, 5400.0, 1.5 * 2 * 4, None)
    assert costs.train_j == 1500.0 and costs.train_img_per_s == 250.0


def test_on_gpus_each_rank_is_one() -> None:
    costs = path_costs([TRUNK, TUNED], ranks("cuda"), threads=4)
    assert (costs.train_gpu_h, costs.train_cpu_h) == (1.5 * 2, None)


def test_a_stage_counts_the_ranks_and_threads_that_trained_it() -> None:
    """A trunk has the resources of its model's entry, and what follows those of its pruning's."""
    path = [replace(TRUNK, ranks=4, threads=8), TUNED]
    assert path_costs(path, ranks("cpu"), threads=3).train_cpu_h == 1.0 * 4 * 8 + 0.5 * 2 * 3
    assert path_costs(path, ranks("cuda"), threads=3).train_gpu_h == 1.0 * 4 + 0.5 * 2


def test_the_peak_of_memory_is_that_of_the_dearest_stage_that_tells() -> None:
    assert path_costs([TRUNK, TUNED], ranks("cpu"), threads=1).train_peak_memory_bytes == 900
    assert path_costs([replace(TRUNK, peak_memory_bytes=None)], ranks("cpu"), threads=1).train_peak_memory_bytes is None


def test_joules_that_one_stage_lacks_are_unknown() -> None:
    assert path_costs([TRUNK, replace(TUNED, joules=None)], ranks("cpu"), threads=1).train_j is None


def test_the_accuracy_of_pruning_alone_is_known_if_one_stage_pruned_at_once() -> None:
    pruned = replace(TUNED, val_top1_pruned=40.0)
    assert pruned_top1([TRUNK, pruned]) == pruned_top1([TRUNK, pruned, TUNED]) == 40.0
    assert pruned_top1([TRUNK, TUNED]) is None
    assert pruned_top1([TRUNK, pruned, TUNED, pruned]) is None  # in rounds


def test_what_describes_a_cell_is_written_again_alike_after_a_kill(tmp_path: Path) -> None:
    cell, folder = make_cell(), tmp_path
    (folder / "model.safetensors").write_bytes(b"weights")
    whole = []
    for _ in range(2):
        describe_cell(folder, cell, record_of(cell), data_of(cell, classes=10))
        whole.append([(folder / name).read_bytes() for name in ("README.md", "config.json")])
        (folder / "README.md").write_bytes(b"torn")
    assert whole[0] == whole[1]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
