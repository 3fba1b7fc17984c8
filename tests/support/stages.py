"""Stages of toy networks, trained in this process, and what they left."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from jobs.parallel.engine import Ranks, rendezvous
from jobs.train.exports import exported
from jobs.train.stage_trainer import StageTrainer
from models.pruning.base import Stage
from models.pruning.dynamic import Dynamic
from tests.support.networks import NO_DECAY, ToyBatches, ToySamples, toy_net, toy_spec

EPOCHS = 3


REGROWN = Dynamic(sparsity=0.6, interval=2, begin_fraction=0.0, end_fraction=0.3, regrow=True)


def stage_run(
    folder: Path,
    stage: Stage,
    ranks: Ranks,
    *,
    seed: int = 0,
    batches: type[ToyBatches] = ToyBatches,
    net: dict[str, Any] | None = None,
    checkpoint_steps: int | None = None,
    teacher: torch.nn.Module | None = None,
    **recipe: Any,
) -> StageTrainer:
    spec = toy_spec(stage, seed=seed, **recipe)
    micro = spec.recipe.micro_batch_size or spec.recipe.batch_size // ranks.world
    loader = batches(spec.recipe.batch_size, micro, ranks)
    model, validation = toy_net(seed, **net or {}), ToySamples(ranks)
    return StageTrainer(spec, model, loader, validation, folder, no_decay=NO_DECAY, ranks=ranks, checkpoint_steps=checkpoint_steps, teacher=teacher)


def train(folder: Path, stage: Stage, ranks: Ranks | None = None, *, parent: Path | None = None, rewind: Path | None = None, **options: Any):
    run = stage_run(folder, stage, ranks or rendezvous(threads=1), **options)
    try:
        return run.run(parent, rewind)
    finally:
        run.network.engine.close()


def dense(epochs: int = EPOCHS, **fields: Any) -> Stage:
    return Stage(name="train", epochs=epochs, **fields)


def lines(folder: Path, event: str | None = None) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("time", "img_per_s")} for line in found if event in (None, line["event"])]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(exported(folder).weights)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
