"""What a job does, on one screen: for each of its stages, claim, train, mark done; for each cell that a stage completes, measure the saved file and record.

The same functions run on a SLURM node, in a local job and inside `reproduce`.
"""

import hashlib
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.claims import claimed
from harness.environment import environment
from harness.grid import Cell
from harness.records import Failure, Metrics, Record, RunFolder
from jobs.files import write_json
from jobs.specs import ClusterSpec, StageSpec
from models.pruning.registry import method_label

if TYPE_CHECKING:
    from jobs.data import Dataset
    from jobs.engine import Ranks


CLAIM_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class CellPath:
    """A cell and the stages that lead to it, first stage first."""

    cell: Cell
    stages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one job is handed: stages in an order in which parents come first, and every cell that passes through one of them."""

    run: str  # run folder
    grid: str
    stages: tuple[StageSpec, ...]
    cells: tuple[CellPath, ...]
    cluster: ClusterSpec


def run_order(order: Order) -> None:
    """Runs the stages and finishes the cells. With one rank a stage that fails leaves the others their turn; with several, the job ends."""
    from jobs.engine import rendezvous

    run = RunFolder(Path(order.run))
    ranks = rendezvous(threads=order.cluster.cpus_per_task)
    for spec in order.stages:
        try:
            run_stage(run, spec, order.cluster, ranks)
            for path in order.cells:
                if path.stages[-1] == spec.id and run.done(spec.id):
                    finish_cell(run, order, path, ranks)
        except Exception as error:
            fail(run, spec, order, error, ranks)
            if ranks.world > 1:
                raise


def run_stage(run: RunFolder, spec: StageSpec, cluster: ClusterSpec, ranks: "Ranks") -> None:
    """Trains one stage unless it is done or has failed. Whoever finds it claimed waits: two launches never run it twice."""
    from jobs.data import prepare
    from jobs.training import train_stage

    with claimed_together(run.path / "claims" / spec.id, ranks):
        parents = [stage for stage in (spec.parent, spec.rewind) if stage]
        todo, blocked = ranks.broadcast(
            (not run.done(spec.id) and run.failure(spec.id) is None, next((stage for stage in parents if not run.done(stage)), None))
        )
        if not todo:
            return
        if blocked:
            raise BlockedError(f"stage {blocked}, from which this one starts, has no weights: see {run.stage(blocked)}")
        if ranks.rank == 0:
            write_json(run.stage(spec.id) / "stage.json", {**describe(spec), "started": now()})
        data = prepare(spec.data, Path(cluster.cache).expanduser())
        parent, rewind = (run.stage(stage) if stage else None for stage in (spec.parent, spec.rewind))
        train_stage(spec, data, run.stage(spec.id), parent=parent, rewind=rewind, ranks=ranks, cluster=cluster)


def finish_cell(run: RunFolder, order: Order, path: CellPath, ranks: "Ranks") -> None:
    """Records a cell: the saved file is loaded again, meets the test set for the first and only time, and is profiled. Rank 0 alone writes."""
    with claimed_together(run.path / "claims" / f"cell-{path.cell.id}", ranks):
        if ranks.broadcast(run.record_path(path.cell.id).exists()):
            return
        started = now()
        weights = save_weights(run, path) if ranks.rank == 0 else None
        weights = ranks.broadcast(weights)
        measured = measure(run, path, Path(weights), order.cluster, ranks)
        if ranks.rank == 0:
            metrics, surroundings = measured
            run.write_record(
                Record(
                    **identity(order, path),
                    status="done",
                    metrics=metrics,
                    environment=surroundings,
                    weights_sha256=sha256(Path(weights)),
                    started=started,
                    finished=now(),
                )
            )


@contextmanager
def claimed_together(path: Path, ranks: "Ranks") -> Iterator[None]:
    """Holds a claim while the block runs. Ranks ask each other every second whether rank 0 has it, so that none waits longer than a collective may."""
    while True:
        with claimed(path, wait=False) if ranks.rank == 0 else nullcontext(False) as held:
            if ranks.broadcast(held):
                yield
                return
        time.sleep(CLAIM_POLL_S)


def measure(run: RunFolder, path: CellPath, weights: Path, cluster: ClusterSpec, ranks: "Ranks") -> Any:
    """Metrics and environment of the saved file; meaningful on rank 0."""
    from jobs.data import EvalLoader, prepare
    from jobs.evaluation import evaluate, load_masks, load_model
    from jobs.exports import read_result
    from jobs.profiling import profile
    from models.ssm.backends import scan_backend_used

    cell, threads = path.cell, cluster.cpus_per_task
    data = prepare(cell.data, Path(cluster.cache).expanduser())
    model = load_model(cell.model, classes=data.classes, img_size=data.img_size, scan=cell.recipe.scan, weights=weights).to(ranks.device)
    loader = EvalLoader(cell.data, data, "test", batch_size=cell.recipe.batch_size, rank=ranks.rank, world=ranks.world, threads=threads)
    scores = evaluate(model, loader.batches(), ranks)
    if ranks.rank != 0:
        return None
    masks = load_masks(weights.parent)
    profiled = profile(model, img_size=data.img_size, masks=masks, threads=threads)
    results = [result for stage in path.stages if (result := read_result(run.stage(stage)))]
    metrics = Metrics(
        top1=scores.top1,
        top5=scores.top5,
        test_loss=scores.loss,
        test_samples=scores.samples,
        val_top1=results[-1].val_top1,
        train_loss=results[-1].train_loss,
        file_bytes=weights.stat().st_size,
        epochs=sum(result.epochs for result in results),
        train_s=sum(result.train_s for result in results),
        train_img_per_s=results[0].train_img_per_s,
        **asdict(profiled),
    )
    scan = scan_backend_used(ranks.device.type, cell.recipe.scan)
    return metrics, environment(ranks=ranks.world, threads=threads, loader=cell.data.loader, scan=scan, data_sha256=data.sha256)


def save_weights(run: RunFolder, path: CellPath) -> str:
    """The cell's own copy of the last stage's exported files (a hard link where the file system has them)."""
    folder = run.record_path(path.cell.id).parent
    folder.mkdir(parents=True, exist_ok=True)
    for exported in (run.stage(path.stages[-1]) / "export").glob("*.safetensors"):
        if exported.name == "rewind.safetensors":
            continue
        target = folder / exported.name
        target.unlink(missing_ok=True)
        try:
            target.hardlink_to(exported)
        except OSError:
            shutil.copy2(exported, target)
    return str(folder / "model.safetensors")


def fail(run: RunFolder, spec: StageSpec, order: Order, error: Exception, ranks: "Ranks") -> None:
    """Writes why a stage stopped, and a record that says so for every cell that passes through it.

    Three errors stand in the log alone: a stage whose parent has failed (the parent's failure says it); a rank that merely lost its peer (the peer says
    it, or nobody does and the job counts as killed); and a full disk, which is no fault of the cell: the stage stays open.
    """
    if isinstance(error, BlockedError):
        print(f"stage {spec.id} is left out: {error}", flush=True)
        return
    traceback.print_exc()
    if peer_lost(error) or disk_full(error):
        return
    failure = Failure(
        kind="diverged" if type(error).__name__ == "Diverged" else type(error).__name__,
        message=str(error) or repr(error),
        stage=spec.id,
        traceback=traceback.format_exc(),
    )
    if run.write_failure(spec.id, failure):
        record_failure(run, failure, order, ranks.world)


def record_failure(run: RunFolder, failure: Failure, order: Order, ranks: int) -> None:
    """Failed records of every cell that passes through the stage which failed."""
    for path in order.cells:
        if failure.stage in path.stages and not run.record_path(path.cell.id).exists():
            surroundings = environment(
                ranks=ranks, threads=order.cluster.cpus_per_task, loader=path.cell.data.loader, scan=path.cell.recipe.scan, data_sha256=""
            )
            run.write_record(
                Record(**identity(order, path), status="failed", failure=failure, environment=surroundings, started=now(), finished=now())
            )


def identity(order: Order, path: CellPath) -> dict[str, Any]:
    """The fields of a record that say which cell it is."""
    cell = path.cell
    return {
        "id": cell.id,
        "grid": order.grid,
        "model": cell.model.label,
        "pruning": cell.pruning,
        "seed": cell.seed,
        "spec": cell.to_json(),
        "stages": list(path.stages),
    }


def peer_lost(error: Exception) -> bool:
    """True for what gloo, NCCL and torch's store raise on the ranks that are left when one has died."""
    signs = ("connection closed by peer", "connection reset by peer", "broken pipe", "socket closed", "connection was likely closed", "remote process exited")
    return any(sign in str(error).lower() for sign in signs)


def disk_full(error: BaseException | None) -> bool:
    """True when an error, or one that led to it, is that of a full disk. (safetensors and torch give no errno, only the words.)"""
    while error is not None:
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def describe(spec: StageSpec) -> dict[str, Any]:
    """What a stage was, for people who read its folder."""
    stage = spec.stage
    return {
        "name": stage.name,
        "model": spec.model.label,
        "method": method_label(stage.method) if stage.method else None,
        "epochs": stage.epochs,
        "seed": spec.seed,
        "parent": spec.parent,
        "rewind": spec.rewind,
    }


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def now() -> str:
    """This moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class BlockedError(RuntimeError):
    """The stage that this one starts from has failed or was never run."""
