"""One stage on all ranks, from its starting weights to its export. A killed stage resumes from its checkpoint."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jobs.experiment.collector import collect_as_usual
from jobs.experiment.pretrained import PretrainedError, check_pretrained, check_teacher
from jobs.experiment.progress import StageProgress
from jobs.experiment.rewinds import adopt_replay, missing_steps, replay_folder
from jobs.experiment.run_folder import CHECKPOINTS, REPLAY_TODO
from jobs.experiment.specs import ClusterSpec, ModelSpec, StageSpec
from jobs.parallel.checkpoints import drop_checkpoints
from jobs.parallel.engine import Ranks, batching
from jobs.parallel.precision import set_precision
from jobs.train.evaluation import load_model
from jobs.train.exports import ExportError, StageResult, exported, read_result
from jobs.train.late_loss import Diverged
from jobs.train.metrics import ignore
from jobs.train.stage_trainer import StageTrainer
from jobs.train.training_state import derived_seed

if TYPE_CHECKING:
    from torch import nn

    from jobs.data.prepare import Dataset

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
    teacher: Path | None = None,
    report: Callable[[StageProgress], None] = ignore,
) -> StageResult:
    """The result of a stage, whose `folder` then holds its export (see `exported`). A collective; rank 0 alone writes, but for checkpoints.

    `parent`, `rewind`, `teacher`: folders of finished stages that it starts from, and of the one that teaches it. A stage that is exported already is
    not run again, but as far as a step that it has not kept and is to keep (see `jobs.experiment.rewinds`).
    Raises Diverged on all ranks at the same step; BatchError, ExportError, CheckpointError.
    """
    prepared = partial(prepared_run, spec, data, teacher=teacher, ranks=ranks, cluster=cluster, report=report)
    result: StageResult | None = ranks.broadcast(read_result(folder))
    if result is None:
        with prepared(folder, spec.stage.keep_steps) as stage:
            result = stage.run(parent, rewind)
    drop_checkpoints(folder / CHECKPOINTS, ranks)
    missing = ranks.broadcast(missing_steps(folder, spec.stage.keep_steps) if ranks.rank == 0 else ())
    if missing:  # the stage was finished, or half-way, before a later stage needed these steps
        with prepared(replay_folder(folder, missing), missing) as stage:
            stage.advance(parent, rewind, max(missing))
    if ranks.rank == 0:
        if missing:
            adopt_replay(folder, missing)
        (folder / REPLAY_TODO).unlink(missing_ok=True)
    ranks.barrier()
    return result


@contextmanager
def prepared_run(
    spec: StageSpec,
    data: "Dataset",
    folder: Path,
    keep_steps: tuple[int, ...],
    *,
    teacher: Path | None = None,
    ranks: Ranks,
    cluster: ClusterSpec,
    report: Callable[[StageProgress], None],
) -> Iterator[StageTrainer]:
    """A trainer for the stage in `folder`, with its network, loaders and engine. The engine is closed at the end of the block."""
    from jobs.data.loaders import EvalLoader, TrainLoader
    from models.layers import weight_decay_groups
    from models.registry import create_model, drop_path_option
    from models.ssm.check import check_kernels

    recipe = spec.recipe
    share: dict[str, Any] = {"rank": ranks.rank, "world": ranks.world, "threads": cluster.cpus_per_task, "device": ranks.device}
    micro = batching(recipe, ranks.world).micro
    set_precision(recipe.dtype)
    torch.manual_seed(spec.seed)
    options = spec.model.architecture
    if recipe.drop_path is not None and (option := drop_path_option(spec.model.name)):  # the grid's reading refuses models without one
        options[option] = recipe.drop_path
    model = create_model(spec.model.name, data.classes, data.img_size, scan_backend=recipe.scan, **options)
    check_kernels(model, ranks.device.type)
    memory = None if cluster.hash_data else Path(cluster.cache).expanduser()  # of digests
    notes = load_given(model, spec.model, memory) if spec.stage.start == "scratch" else ()  # a later stage takes the weights of its parent
    if ranks.rank == 0:
        print("".join(f"pretrained: {note}\n" for note in notes), end="", flush=True)
    teaching = teacher_network(spec, data, teacher, memory)
    no_decay = weight_decay_groups(model, recipe.decay_ssm)[1]
    order = derived_seed(spec.seed, "order", spec.stage.schedule)
    training = TrainLoader(spec.data, data, seed=order, batch_size=recipe.batch_size, micro_batch_size=micro, recipe=recipe, **share)
    validation = EvalLoader(spec.data, data, "val", batch_size=micro, **share)
    steps = cluster.checkpoint_steps
    spec = replace(spec, stage=replace(spec.stage, keep_steps=keep_steps))
    stage = StageTrainer(
        spec,
        model,
        training,
        validation,
        folder,
        no_decay=no_decay,
        ranks=ranks,
        checkpoint_steps=steps,
        report=report,
        notes=notes,
        teacher=teaching,
    )
    collect_as_usual()
    try:
        yield stage
    finally:
        stage.network.engine.close()


def teacher_network(spec: StageSpec, data: "Dataset", folder: Path | None, memory: Path | None = None) -> "nn.Module | None":
    """The network that teaches a stage, on the CPU: that of the finished stage in `folder`, or that of the recipe's file; None without distillation.

    `memory`: the folder that remembers digests. Raises PretrainedError if the file is not the one that the launch read, or has another number of
    classes.
    """
    distill = spec.recipe.distill
    if distill is None:
        return None
    if distill.file is None:
        if folder is None:
            raise ExportError(f"stage {spec.stage.name} is taught by the dense training, but no such stage was given")
        weights = exported(folder).weights
        return load_model(spec.model, classes=data.classes, img_size=data.img_size, scan=spec.recipe.scan, weights=weights)
    from models.pretrained import load_pretrained
    from models.registry import create_model

    check_teacher(distill, memory)
    network = create_model(spec.model.name, data.classes, data.img_size, scan_backend=spec.recipe.scan, **spec.model.architecture)
    if fresh := load_pretrained(network, Path(distill.file), distill.key).fresh_head:
        raise PretrainedError(f"distill.teacher: {distill.file} cannot teach: {fresh}")
    return network


def load_given(network: "nn.Module", model: ModelSpec, memory: Path | None) -> tuple[str, ...]:
    """Fills the network with the weights of the model's pretrained file, if it has one; what of it is not as it stands in the file.

    `memory`: the folder that remembers digests. Raises PretrainedError if the file is not the one that the launch read.
    """
    from models.pretrained import load_pretrained

    path = model.options.get("pretrained")
    if path is None:
        return ()
    check_pretrained(model, memory)
    return load_pretrained(network, Path(path), model.options.get("pretrained_key")).sentences
