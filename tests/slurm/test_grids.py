"""The grids that come with the project: they plan, and a small cell of each of their pairs trains."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.grid.read import read_grid
from harness.launch import main
from harness.plan.stages import make_graph
from jobs.experiment.cell import Cell
from jobs.experiment.specs import RecipeSpec, StageSpec
from jobs.parallel.engine import Ranks, rendezvous
from jobs.train.evaluation import load_masks
from jobs.train.removal import load_structure
from jobs.train.stage_trainer import StageTrainer
from models.layers import weight_decay_groups
from models.pruning.base import PruningMethod
from models.pruning.masks import sparsity_of
from models.pruning.registry import METHODS, method_label
from models.registry import create_model

SEED = Path(__file__).parents[2] / "slurm" / "grids" / "seed.yaml"
SMALL = {"vim_tiny": ("vim_micro", {"depth": 2, "dim": 16}), "mambavision_t": ("mambavision_micro", {"dim": 8, "in_dim": 8, "depths": [1, 1, 2, 2]})}
STEPS, BATCH = 2, 16


@cache
def seed_cells() -> tuple[Cell, ...]:
    """The seed grid's cells of its first seed."""
    return tuple(cell for cell in read_grid(SEED).cells if cell.seed == 0)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images (B, 3, 32, 32) and labels of the first handwritten digits."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = torch.tensor(loaded.images[: STEPS * BATCH], dtype=torch.float32) / 8 - 1
    return images[:, None].repeat(1, 3, 4, 4), torch.tensor(loaded.target[: STEPS * BATCH])


@dataclass
class Digits:
    """Stands for a loader: the same batches every epoch."""

    steps_per_epoch: int

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Those from `first_step` on."""
        yield from list(self.batches())[first_step:]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All of them."""
        yield from islice(zip(*(tensor.split(BATCH) for tensor in digits()), strict=True), self.steps_per_epoch)


def small_cells(label: str) -> tuple[Cell, ...]:
    """The seed grid's cells of a model at the size of a test: one epoch of each kind, one round."""
    cells = []
    for cell in seed_cells():
        if cell.model.label == label:
            name, smaller = SMALL[cell.model.name]
            variant = {key: value for key, value in cell.model.options.items() if isinstance(value, dict)}
            method: PruningMethod = replace(cell.method, rounds=1) if hasattr(cell.method, "rounds") else cell.method
            recipe = RecipeSpec(epochs=1, finetune_epochs=1, batch_size=BATCH, lr=1e-2)
            cells.append(replace(cell, model=replace(cell.model, name=name, options=smaller | variant), method=method, recipe=recipe))
    return tuple(cells)


def train(spec: StageSpec, folder: Path, ranks: Ranks) -> None:
    """Leaves a stage's export in its folder beside the others'."""
    torch.manual_seed(spec.seed)
    model = create_model(spec.model.name, 10, 32, **spec.model.options)
    no_decay = weight_decay_groups(model, spec.recipe.decay_ssm)[1]
    run = StageTrainer(spec, model, Digits(STEPS), Digits(1), folder / spec.id, no_decay=no_decay, ranks=ranks)
    try:
        run.run(folder / spec.parent if spec.parent else None, folder / spec.rewind if spec.rewind else None)
    finally:
        run.network.engine.close()


def test_the_seed_grid_plans_on_a_login_node(tmp_path, monkeypatch, capsys):
    for name in (*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"):
        path = tmp_path / "data" / "cifar-10-batches-py" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not looked into by a plan")
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("jobs.cluster.slurm_limits.slurm_problems", lambda cluster: [])  # what the cluster offers is asked elsewhere
    monkeypatch.setattr("torch.version.cuda", "13.0")  # the build that a cluster with GPUs has
    monkeypatch.chdir(tmp_path)
    assert main([str(SEED), "--dry-run"]) == 0
    assert "seed: 189 cells" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_the_seed_grid_crosses_nine_models_with_seven_methods_and_three_seeds():
    grid = read_grid(SEED)
    methods = {method_label(cell.method) for cell in grid.cells}
    assert len(grid.cells) == 9 * 7 * 3 and len({cell.model.label for cell in grid.cells}) == 9
    masked = {"dense", "random(0.6)", "magnitude(0.6)", "dynamic(0.6)", "iterative_magnitude(0.5904, rounds=4)", "gradient(0.6)"}
    assert methods == masked | {"early_bird(ratio=0.6)"}
    assert {cell.method.name for cell in grid.cells} <= set(METHODS)


def test_the_seed_grid_shares_the_dense_training_of_each_model_and_seed():
    grid = read_grid(SEED)
    plan = make_graph(grid.cells)
    first = [path[0] for path in plan.paths.values()]
    assert max(first.count(stage) for stage in set(first)) == 5  # dense, random, magnitude, IMP, gradient
    assert len(plan.stages) == 27 * (1 + 4 + 8 + 2)  # the trunk, fine-tuning on it, IMP's four rounds, dynamic and early_bird


@pytest.mark.slow
@pytest.mark.parametrize("label", sorted({cell.model.label for cell in seed_cells()}))
def test_every_method_prunes_every_model_of_the_seed_grid(tmp_path, label):
    cells = small_cells(label)
    plan = make_graph(cells)
    for spec in plan.stages.values():
        train(spec, tmp_path, rendezvous(threads=1))
    for cell in cells:
        export = tmp_path / plan.paths[cell.id][-1] / "export"
        assert sparsity_of(load_masks(export)) == pytest.approx(getattr(cell.method, "sparsity", 0.0), abs=1e-4), method_label(cell.method)
        structure = load_structure(export)
        units = structure.summary.values() if structure else [(1, 1)]
        kept, before = (sum(counts) for counts in zip(*units, strict=True))
        assert kept == before - round(getattr(cell.method, "ratio", 0.0) * before), method_label(cell.method)
