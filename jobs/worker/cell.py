"""What a finished cell is measured by: the saved file, loaded again, on the test set and in its costs."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.experiment.cell import Cell
from jobs.experiment.job import PlannedCell
from jobs.experiment.records import Metrics
from jobs.experiment.run_folder import EXPORT, MASKS, STRUCTURE, WEIGHTS, RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.recovery.micro_batch import asked, note, smaller
from jobs.worker.environment import environment

if TYPE_CHECKING:
    from torch import nn

    from jobs.data.prepare import Dataset
    from jobs.measure.profiling import Profile
    from jobs.parallel.engine import Ranks
    from jobs.train.exports import StageResult


def measure(run: RunFolder, path: PlannedCell, weights: Path, cluster: ClusterSpec, ranks: "Ranks", last: StageSpec) -> Any:
    """Metrics and environment of the saved file; meaningful on rank 0."""
    from jobs.data.loaders import EvalLoader
    from jobs.data.prepare import prepare
    from jobs.train.evaluation import evaluate, load_model
    from jobs.train.exports import read_result
    from jobs.train.removal import load_structure
    from models.ssm.backends import scan_backend_used

    cell, threads = path.cell, cluster.cpus_per_task
    data = prepare(cell.data, Path(cluster.cache).expanduser())
    model = load_model(cell.model, classes=data.classes, img_size=data.img_size, scan=cell.recipe.scan, weights=weights).to(ranks.device)
    small = micro_batches(run, path, ranks.world)
    batch = small.get(last.id, cell.recipe.batch_size)
    loader = EvalLoader(cell.data, data, "test", batch_size=batch, rank=ranks.rank, world=ranks.world, threads=threads)
    scores = evaluate(model, loader.batches(), ranks)
    if ranks.rank != 0:
        return None
    profiled = costs(cell, data, model, weights, cluster)
    structure = load_structure(weights.parent)
    removed = structure.notes if structure else ()
    results = [result for stage in path.stages if (result := read_result(run.stage_dir(stage)))]
    metrics = Metrics(
        top1=scores.top1,
        top5=scores.top5,
        test_loss=scores.loss,
        test_samples=scores.samples,
        val_top1=results[-1].val_top1,
        train_loss=results[-1].train_loss,
        file_bytes=weights.stat().st_size,
        **path_costs(results, ranks, threads),
        micro_batches=small,
        structure=structure.summary if structure else {},
        **asdict(profiled) | {"notes": [*profiled.notes, *removed, *(note(stage, micro, cell.recipe) for stage, micro in small.items())]},
    )
    scan = scan_backend_used(ranks.device.type, cell.recipe.scan)
    return metrics, environment(ranks=ranks.world, threads=threads, loader=cell.data.loader, scan=scan, data_sha256=data.sha256)


def costs(cell: Cell, data: "Dataset", model: "nn.Module", weights: Path, cluster: ClusterSpec) -> "Profile":
    """What the network costs, beside the dense one where it was pruned."""
    from jobs.measure.profiling import profile
    from jobs.train.evaluation import load_masks
    from models.registry import create_model

    whole = partial(create_model, cell.model.name, data.classes, data.img_size, scan_backend=cell.recipe.scan, **cell.model.options)
    return profile(
        model,
        img_size=data.img_size,
        masks=load_masks(weights.parent),
        threads=cluster.cpus_per_task,
        dense=None if cell.method.name == "dense" else whole,
        batch_size=cluster.profile_batch,
        seconds=cluster.profile_s,
    )


def micro_batches(run: RunFolder, path: PlannedCell, world: int) -> dict[str, int]:
    """Images of a forward pass in those stages of a cell that did not fit into memory with what the recipe asks for."""
    found = {stage: smaller(run.stage_dir(stage)) for stage in path.stages}
    return {stage: micro for stage, micro in found.items() if micro is not None and micro < asked(path.cell.recipe, world)}


def save_weights(run: RunFolder, path: PlannedCell) -> str:
    """The cell's own copy of the last stage's exported files (a hard link where the file system has them)."""
    folder = run.record_path(path.cell.id).parent
    folder.mkdir(parents=True, exist_ok=True)
    for exported in (run.stage_dir(path.stages[-1]) / EXPORT).iterdir():
        if exported.name not in (WEIGHTS, MASKS, STRUCTURE):
            continue
        target = folder / exported.name
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(exported)
        except OSError:
            shutil.copy2(exported, target)
    return str(folder / WEIGHTS)


def path_costs(results: Sequence["StageResult"], ranks: "Ranks", threads: int) -> dict[str, Any]:
    """Fields of `Metrics`. `results`: of every stage, first first. Hours are those of all ranks (GPUs) or of all their threads (cores).

    Joules are unknown when those of one stage are.
    """
    train_s = sum(result.train_s for result in results)
    rank_h = train_s * ranks.world / 3600
    on_gpu = ranks.device.type == "cuda"
    joules = [result.joules for result in results]
    peaks = [result.peak_memory_bytes for result in results if result.peak_memory_bytes is not None]
    return {
        "epochs": sum(result.epochs for result in results),
        "train_s": train_s,
        "train_img_per_s": results[0].train_img_per_s,
        "train_gpu_h": rank_h if on_gpu else None,
        "train_cpu_h": None if on_gpu else rank_h * threads,
        "train_peak_memory_bytes": max(peaks, default=None),
        "train_j": None if None in joules else sum(joules),
    }
