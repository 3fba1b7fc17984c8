"""The numbers of a finished cell: its saved file, loaded again, on the test set and in its costs; and the record that holds them."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.experiment.cell import Cell
from jobs.experiment.cell_config import cell_config
from jobs.experiment.files import write_json, write_text
from jobs.experiment.ids import StageId
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.published import comparison
from jobs.experiment.records import Environment, Failure, Metrics, Record, Tuning, now
from jobs.experiment.run_folder import CARD, CONFIG, MASKS, STRUCTURE, WEIGHTS, RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.recovery.micro_batch import micro_batch_note, recipe_micro_batch, stored_micro_batch
from jobs.worker.choice import own_path
from jobs.worker.data import data_on_this_node
from jobs.worker.environment import current_environment

if TYPE_CHECKING:
    from torch import nn

    from jobs.data.prepare import Dataset
    from jobs.measure.profiling import NetworkProfile
    from jobs.parallel.engine import Ranks
    from jobs.train.exports import StageResult


@dataclass(frozen=True, kw_only=True)
class MeasuredCell:
    """The numbers of a finished cell, and where and with what they were measured."""

    metrics: Metrics
    environment: Environment
    data: "Dataset"  # on which it was evaluated


@dataclass(frozen=True, kw_only=True)
class PathCosts:
    """The cost of a cell's training over its whole path: shared stages, and the search for a mask, included."""

    epochs: int
    train_s: float
    train_img_per_s: float  # of the first stage that made a step; 0 if none did
    train_gpu_h: float | None  # hours of all ranks' GPUs; None on CPUs
    train_cpu_h: float | None  # hours of all threads of all ranks; None on GPUs
    train_peak_memory_bytes: int | None  # the maximum over the stages; None if no stage measured it
    train_j: float | None  # joules; None if those of one stage are unknown


def measure_cell(run: RunFolder, planned: PlannedCell, weights: Path, cluster: ClusterSpec, ranks: "Ranks", last: StageSpec) -> MeasuredCell | None:
    """Evaluates the saved file on the test set and profiles it; None on ranks other than 0. A collective.

    `last`: the cell's last stage as it was run.
    """
    from jobs.data.loaders import EvalLoader
    from jobs.parallel.precision import set_precision
    from jobs.train.evaluation import evaluate, load_model
    from jobs.train.exports import read_result
    from jobs.train.removal import load_structure
    from models.ssm.backends import scan_backend_used

    cell, threads = planned.cell, cluster.cpus_per_task
    set_precision(cell.recipe.dtype)
    data = data_on_this_node(cell.data, cluster, ranks)
    model = load_model(cell.model, classes=data.classes, img_size=data.img_size, scan=cell.recipe.scan, weights=weights).to(ranks.device)
    smaller = smaller_micro_batches(run, planned, ranks.world)
    batch = smaller.get(last.id, recipe_micro_batch(cell.recipe, ranks.world))
    loader = EvalLoader(cell.data, data, "test", batch_size=batch, rank=ranks.rank, world=ranks.world, threads=threads, device=ranks.device)
    scores = evaluate(model, loader.batches(), ranks)
    if ranks.rank != 0:
        return None
    profiled = profile_cell(cell, data, model, weights, cluster)
    structure = load_structure(weights.parent)
    removal_notes = structure.notes if structure else ()
    memory_notes = [micro_batch_note(stage, micro, cell.recipe) for stage, micro in smaller.items()]
    results = [result for stage in own_path(run, planned) if (result := read_result(run.stage_dir(stage)))]
    loading = [note for result in results for note in result.notes]
    held = comparison(cell, classes=data.classes, img_size=data.img_size, images=scores.samples, changes=loading)
    metrics = Metrics(
        top1=scores.top1,
        top5=scores.top5,
        test_loss=scores.loss,
        test_samples=scores.samples,
        val_top1=results[-1].val_top1,
        val_top1_pruned=pruned_top1(results),
        train_loss=results[-1].train_loss if math.isfinite(results[-1].train_loss) else None,
        file_bytes=weights.stat().st_size,
        **asdict(path_costs(results, ranks, threads)),
        micro_batches={str(stage): micro for stage, micro in smaller.items()},
        structure=structure.summary if structure else {},
        published_top1=held.published.top1 if held.published else None,
        published_top5=held.published.top5 if held.published else None,
        published_source=held.published.source if held.published else None,
        **asdict(profiled) | {"notes": [*profiled.notes, *removal_notes, *loading, *memory_notes, *filter(None, [held.note])]},
    )
    scan = scan_backend_used(ranks.device.type, cell.recipe.scan)
    surroundings = current_environment(ranks=ranks.world, threads=threads, loader=cell.data.loader, scan=scan, data_sha256=data.sha256)
    return MeasuredCell(metrics=metrics, environment=surroundings, data=data)


def cell_record(
    job: JobSpec,
    planned: PlannedCell,
    environment: Environment,
    *,
    started: str,
    metrics: Metrics | None = None,
    failure: Failure | None = None,
    weights_sha256: str | None = None,
    tuning: Tuning | None = None,
) -> Record:
    """The record of a cell that has ended now; failed if there is a failure. Of a tuned cell, it names the stages of the chosen trial."""
    cell = planned.cell
    return Record(
        id=cell.id,
        grid=job.grid,
        model=cell.model.label,
        pruning=cell.pruning,
        seed=cell.seed,
        spec=dict(cell.to_json()),
        stages=tuning.trials[tuning.chosen].stages if tuning else list(planned.required),
        status="failed" if failure else "done",
        failure=failure,
        metrics=metrics,
        environment=environment,
        weights_sha256=weights_sha256,
        tuning=tuning,
        started=started,
        finished=now(),
    )


def profile_cell(cell: Cell, data: "Dataset", model: "nn.Module", weights: Path, cluster: ClusterSpec) -> "NetworkProfile":
    """The costs of the saved network, measured beside the dense network if it was pruned."""
    from jobs.measure.profiling import profile_network
    from jobs.measure.protocols import further_protocols
    from jobs.train.evaluation import load_masks
    from models.registry import create_model

    whole = partial(create_model, cell.model.name, data.classes, data.img_size, scan_backend=cell.recipe.scan, **cell.model.architecture)
    return profile_network(
        model,
        img_size=data.img_size,
        masks=load_masks(weights.parent),
        threads=cluster.cpus_per_task,
        dense=None if cell.method.name == "dense" else whole,
        batch_size=cluster.profile_batch,
        seconds=cluster.profile_s,
        further=further_protocols(cluster.profile),
    )


def smaller_micro_batches(run: RunFolder, planned: PlannedCell, world: int) -> dict[StageId, int]:
    """Images of a forward pass, for the stages of a cell that ran out of memory with the micro-batch of their recipe."""
    stored = {stage: stored_micro_batch(run.stage_dir(stage)) for stage in own_path(run, planned)}
    return {stage: micro for stage, micro in stored.items() if micro is not None and micro < recipe_micro_batch(planned.cell.recipe, world)}


def save_weights(run: RunFolder, planned: PlannedCell) -> str:
    """The path of the cell's own copy of its last stage's weights, with masks and structure beside it. Hard links if the file system has them."""
    folder = run.record_path(planned.cell.id).parent
    folder.mkdir(parents=True, exist_ok=True)
    for exported in run.export_dir(planned.stages[-1]).iterdir():
        if exported.name not in (WEIGHTS, MASKS, STRUCTURE):
            continue
        target = folder / exported.name
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(exported)
        except OSError:
            shutil.copy2(exported, target)
    return str(folder / WEIGHTS)


def describe_cell(folder: Path, cell: Cell, record: Record, data: "Dataset") -> None:
    """Writes what lets others use a cell's folder: its config.json and its model card. Both are written again, alike, if the job is killed here."""
    from jobs.worker.model_card import model_card

    config = cell_config(cell, record, folder, classes=data.classes, names=data.names)
    write_json(folder / CONFIG, config.model_dump(mode="json", exclude_none=False))
    write_text(folder / CARD, model_card(record, config))


def pruned_top1(results: Sequence["StageResult"]) -> float | None:
    """Validation top-1 of the trained network after its pruning and before the first fine-tuning step; None unless one stage pruned it, at once."""
    measured = [result.val_top1_pruned for result in results if result.val_top1_pruned is not None]
    return measured[0] if len(measured) == 1 else None


def path_costs(results: Sequence["StageResult"], ranks: "Ranks", threads: int) -> PathCosts:
    """The cost of a path from the results of its stages, first stage first. Each counts the ranks and threads that trained it.

    ranks, threads: of the job that measures, for stages that do not say which they had.
    """
    train_s = sum(result.train_s for result in results)
    rank_h = [result.train_s * (result.ranks or ranks.world) / 3600 for result in results]
    core_h = [hours * (result.threads or threads) for hours, result in zip(rank_h, results, strict=True)]
    on_gpu = ranks.device.type == "cuda"
    joules = [result.joules for result in results if result.joules is not None]
    peaks = [result.peak_memory_bytes for result in results if result.peak_memory_bytes is not None]
    return PathCosts(
        epochs=sum(result.epochs for result in results),
        train_s=train_s,
        train_img_per_s=next((result.train_img_per_s for result in results if result.steps), 0.0),
        train_gpu_h=sum(rank_h) if on_gpu else None,
        train_cpu_h=None if on_gpu else sum(core_h),
        train_peak_memory_bytes=max(peaks, default=None),
        train_j=sum(joules) if len(joules) == len(results) else None,
    )
