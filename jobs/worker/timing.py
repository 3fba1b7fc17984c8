"""A job that times a few real steps of models: their training, evaluation, checkpoint and export, with the loader and the engine of a stage.

What it writes besides its numbers lies in a folder that its launch removes.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.experiment.cell import Cell
from jobs.experiment.collector import collect_rarely
from jobs.experiment.output import replace_unencodable
from jobs.experiment.plugins import PluginCopy
from jobs.experiment.records import now
from jobs.experiment.run_folder import WEIGHTS, RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.experiment.step_times import StepTimes, write_times
from jobs.worker.data import data_on_this_node
from jobs.worker.environment import cpu_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from jobs.data.prepare import Dataset
    from jobs.parallel.engine import Ranks
    from jobs.train.stage_trainer import StageTrainer

SECONDS = 5.0  # for which steps are timed, and batches of an evaluation
FEWEST, MOST = 3, 100  # steps, or batches, that are timed after the first one


@dataclass(frozen=True, kw_only=True)
class TimedModel:
    """A model to be timed: the dense training of one of its cells, and the file for its times."""

    cell: Cell
    spec: StageSpec
    file: str


@dataclass(frozen=True, kw_only=True)
class TimingJob:
    """What such a job is given."""

    plugins: tuple[PluginCopy, ...] = ()  # the first field: unpickling loads them before the models among the others
    run: str  # the run folder that is removed afterwards
    models: tuple[TimedModel, ...]
    cluster: ClusterSpec
    copies: int = 1  # that run side by side
    submitted: float | None = None  # time.time() on this machine; None: the job may have waited in a queue


def time_models(job: TimingJob) -> None:
    """Times every model of the job, and writes a file for each."""
    collect_rarely()
    import jobs.data.loaders
    import jobs.train.stage  # noqa: F401  # with what they import in turn: a part of the start of every job
    from jobs.parallel.engine import load_deepspeed, rendezvous

    replace_unencodable()
    ranks = rendezvous(threads=job.cluster.cpus_per_task, gpus=job.cluster.promised_gpus)
    load_deepspeed()
    start_s = time.time() - (process_began() if job.submitted is None else job.submitted)
    for model in job.models:
        if ranks.rank == 0:
            print(f"timing {model.cell.model.label}", flush=True)
        times = time_model(model, RunFolder(Path(job.run)), job, ranks, start_s)
        if ranks.rank == 0:
            write_times(Path(model.file), times)
    ranks.finish()


def process_began() -> float:
    """When this process was started, as time.time() has it."""
    import psutil

    return psutil.Process().create_time()


def time_model(model: TimedModel, run: RunFolder, job: TimingJob, ranks: "Ranks", start_s: float) -> StepTimes:
    """The times of one model. A collective."""
    from jobs.train.evaluation import evaluate
    from jobs.train.metrics import ignore
    from jobs.train.stage import prepared_run

    cluster, folder, spec = job.cluster, run.stage_dir(model.spec.id), model.spec
    clock = Clock(ranks)
    data = data_on_this_node(spec.data, cluster, ranks)
    with prepared_run(spec, data, folder, (), ranks=ranks, cluster=cluster, report=ignore) as stage:
        stage.start(None, None)
        prepare_s = clock.lap()
        steps = timed_steps(stage, clock)
        stage.network.copy_result()
        network = stage.network.snapshot.model
        batches = Limited(stage.validation.batches(), clock)
        scores = evaluate(network, batches, ranks)
        clock.lap()
        stage.state.val_top1, stage.state.train_loss = scores.top1, 0.0
        stage.save()
        checkpoint_s = clock.lap()
        checkpoint_bytes = size_of(stage.checkpoints)
        stage.export(inherited_loss=0.0)
        export_s = clock.lap()
        if ranks.rank == 0:
            measure(model.cell, data, network, run.export_dir(spec.id) / WEIGHTS, cluster)
        ranks.barrier()
        measure_s = clock.lap()
        return StepTimes(
            model=spec.model.label,
            cpu=cpu_name(),
            gpu=gpu_name(ranks),
            ranks=ranks.world,
            threads=cluster.cpus_per_task,
            copies=job.copies,
            measured=now(),
            start_s=start_s,
            prepare_s=prepare_s,
            first_step_s=steps.first_s,
            steps=steps.count,
            step_s=steps.each_s,
            step_joules=steps.joules,
            no_energy=stage.energy.meter.missing,
            eval_image_s=batches.image_s / ranks.world,
            checkpoint_s=checkpoint_s,
            export_s=export_s,
            measure_s=measure_s,
            steps_per_epoch=stage.training.steps_per_epoch,
            val_images=data.val_samples,
            test_images=data.test_samples,
            weights_bytes=size_of(run.export_dir(spec.id)),
            mask_bytes=prunable_weights(network),
            checkpoint_bytes=checkpoint_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What training steps took."""

    first_s: float
    count: int
    each_s: float
    joules: float | None  # of each


def timed_steps(stage: "StageTrainer", clock: "Clock") -> Steps:
    """Times real training steps of one epoch, the first one apart. A collective."""
    from jobs.measure.energy import StageEnergy

    ranks = stage.ranks
    stage.network.engine.module.train()
    with closing(stage.training.epoch(0)) as batches:
        clock.lap()
        stage.train_step(batches)
        first_s = each_s = clock.lap()
        left, count, joules = stage.training.steps_per_epoch - 1, 1, None
        if left:
            stage.train_step(batches)
            each_s = clock.lap()
            left -= 1
        if left:
            count = ranks.broadcast(min(left, how_many(each_s)))
            energy = StageEnergy(ranks, 0.0)
            clock.lap()
            for _ in range(count):
                stage.train_step(batches)
            each_s, total = clock.lap() / count, energy.total()
            joules = None if total is None else total / count
    return Steps(first_s=first_s, count=count, each_s=each_s, joules=joules)


def how_many(each_s: float) -> int:
    """The steps that fit into SECONDS, but at least FEWEST and at most MOST."""
    return max(FEWEST, min(MOST, int(SECONDS / max(each_s, 1e-9))))


class Clock:
    """Seconds between moments at which the device had nothing left to do."""

    def __init__(self, ranks: "Ranks") -> None:
        self.device = ranks.device
        self.last = self.now()

    def now(self) -> float:
        """This moment, once the device has done its work."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        before, self.last = self.last, self.now()
        return self.last - before


class Limited(Iterator[tuple["Tensor", "Tensor"]]):
    """The first batches of an evaluation, for about SECONDS, and how long they took."""

    def __init__(self, batches: Iterable[tuple["Tensor", "Tensor"]], clock: Clock) -> None:
        self.batches, self.clock = iter(batches), clock
        self.asked = [clock.now()]  # when each batch was asked for, and the end
        self.sizes: list[int] = []

    def __next__(self) -> tuple["Tensor", "Tensor"]:
        """The next batch, while there is time."""
        if self.sizes:
            self.asked.append(self.clock.now())
        if len(self.sizes) > FEWEST and self.asked[-1] - self.asked[0] > SECONDS:
            raise StopIteration
        images, labels = next(self.batches)
        self.sizes.append(len(labels))
        return images, labels

    @property
    def image_s(self) -> float:
        """Seconds of an image of this rank; without the first batch, which waits for the loader, if others came. 0 if this rank had none."""
        first = 1 if len(self.sizes) > 1 else 0
        images = sum(self.sizes[first:])
        return (self.asked[-1] - self.asked[first]) / images if images else 0.0


def measure(cell: Cell, data: "Dataset", network: "nn.Module", weights: Path, cluster: ClusterSpec) -> None:
    """Measures the costs of a network as they are measured for a finished cell."""
    from jobs.worker.cell import profile_cell

    profile_cell(cell, data, network.eval(), weights, cluster)


def prunable_weights(network: "nn.Module") -> int:
    """The weights that methods prune by default, and so the bytes of their masks."""
    from models.pruning.scope import prunable_names

    sizes = {name: weight.numel() for name, weight in network.named_parameters()}
    try:
        return sum(sizes[name] for name in prunable_names(network))
    except ValueError:  # it has none
        return 0


def gpu_name(ranks: "Ranks") -> str | None:
    """The GPU's name as a record has it; None on CPUs."""
    import torch

    return torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else None


def size_of(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
