"""One stage of a cell, from its starting weights to its exported ones, on all ranks; goes on from its checkpoint when it was killed."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from jobs.checkpoints import drop_checkpoints
from jobs.engine import Ranks, batching
from jobs.exports import StageResult, exported, read_result
from jobs.metrics import StageProgress, ignore
from jobs.specs import ClusterSpec, StageSpec
from jobs.stage_run import Diverged, StageRun, derived_seed

if TYPE_CHECKING:
    from jobs.data import Dataset

__all__ = ["Diverged", "StageProgress", "StageResult", "exported", "train_stage"]


def train_stage(
    spec: StageSpec,
    data: "Dataset",
    folder: Path,
    *,
    parent: Path | None,
    rewind: Path | None,
    ranks: Ranks,
    cluster: ClusterSpec,
    report: Callable[[StageProgress], None] = ignore,
) -> StageResult:
    """The result of a stage, whose `folder` then holds its export (see `exported`). A collective; rank 0 alone writes, but for checkpoints.

    `parent`, `rewind`: folders of finished stages that it starts from. A stage that is exported already is not run again.
    Raises Diverged on all ranks at the same step; BatchError, ExportError, CheckpointError.
    """
    result = ranks.broadcast(read_result(folder))
    if result is not None:
        drop_checkpoints(folder / "checkpoints", ranks)
        return result
    from jobs.data import EvalLoader, TrainLoader
    from models.layers import weight_decay_groups
    from models.registry import create_model

    recipe, share = spec.recipe, {"rank": ranks.rank, "world": ranks.world, "threads": cluster.cpus_per_task}
    micro = batching(recipe, ranks.world).micro
    torch.manual_seed(spec.seed)
    model = create_model(spec.model.name, data.classes, data.img_size, scan_backend=recipe.scan, **spec.model.options)
    no_decay = weight_decay_groups(model, recipe.decay_ssm)[1]
    order = derived_seed(spec.seed, "order", spec.stage.schedule)
    training = TrainLoader(spec.data, data, seed=order, batch_size=recipe.batch_size, micro_batch_size=micro, **share)
    validation = EvalLoader(spec.data, data, "val", batch_size=micro, **share)
    steps = cluster.checkpoint_steps
    stage = StageRun(spec, model, training, validation, folder, no_decay=no_decay, ranks=ranks, checkpoint_steps=steps, report=report)
    try:
        return stage.run(parent, rewind)
    finally:
        stage.engine.close()
