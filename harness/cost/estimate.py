"""The cost of a plan: hours, bytes and joules by model and pruning, what sharing stages saves, and how long the jobs take side by side."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.cost.knowledge import RECORD_BYTES, Cost, Knowledge, known_sum
from harness.cost.schedule import makespan
from harness.cost.work import shape_of
from harness.plan.jobs import parent_jobs
from harness.plan.stages import StageGraph
from jobs.cluster.submitit_jobs import local_slots
from jobs.experiment.ids import CellId, StageId
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.specs import ClusterSpec

SHARED = "(shared stages)"
HOUR_S = 3600.0


def hours(cluster: ClusterSpec, seconds: float, *, of_gpus: bool) -> float:
    """GPU-hours, or core-hours, of seconds of a job on a cluster. A job without GPUs takes no GPU-hours."""
    units = (cluster.ranks if cluster.promised_gpus else 0) if of_gpus else cluster.ranks * cluster.cpus_per_task
    return seconds * units / HOUR_S


def slots_of(cluster: ClusterSpec) -> int | None:
    """How many jobs run at a time; None: as many as SLURM has room for."""
    if cluster.kind == "slurm":
        return cluster.max_parallel
    return 1 if cluster.kind == "debug" else local_slots(cluster)


@dataclass(kw_only=True)
class Row:
    """What the cells of one pruning of one model take, or the stages that they share with other prunings."""

    model: str
    pruning: str
    cells: int = 0
    own_h: float = 0.0  # of stages that no other row needs, and of measurements
    alone_h: float = 0.0  # of its cells if each ran alone
    file_bytes: int = 0
    joules: float | None = 0.0  # of `own_h`


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The cost of the jobs of a plan, without what is done."""

    graph: StageGraph
    jobs: Sequence[JobSpec]
    done: Collection[StageId]
    knowledge: Knowledge
    cluster: ClusterSpec

    @cached_property
    def stages(self) -> dict[StageId, Cost]:
        """The cost of each stage that is to be run."""
        todo = [(spec.id, shape_of(job.cluster)) for job in self.jobs for spec in job.stages if spec.id not in self.done]
        return {stage: self.knowledge.stage(self.graph.stages[stage], shape) for stage, shape in todo}

    @cached_property
    def clusters(self) -> dict[StageId, ClusterSpec]:
        """Where each stage of the jobs runs."""
        return {spec.id: job.cluster for job in self.jobs for spec in job.stages}

    @cached_property
    def cells(self) -> list[PlannedCell]:
        """The cells that are to be run."""
        return list({planned.cell.id: planned for job in self.jobs for planned in job.cells}.values())

    @cached_property
    def measurements_s(self) -> dict[CellId, float]:
        """Seconds of the measurement of each cell."""
        return {each.cell.id: self.knowledge.measurement_s(each.cell, shape_of(self.clusters[each.stages[-1]])) for each in self.cells}

    @cached_property
    def job_s(self) -> list[float]:
        """Seconds of each job: its start, its stages, the measurement of the cells that end in it."""
        return [self.knowledge.start_s + sum(self._stage_s(spec.id) for spec in job.stages) + sum(self._measured_in(job)) for job in self.jobs]

    def _stage_s(self, stage: StageId) -> float:
        return self.stages[stage].seconds if stage in self.stages else 0.0

    def _measured_in(self, job: JobSpec) -> list[float]:
        ends = {spec.id for spec in job.stages}
        return [self.measurements_s[planned.cell.id] for planned in job.cells if planned.stages[-1] in ends]

    @property
    def of_gpus(self) -> bool:
        """True if hours are those of GPUs; False: those of cores."""
        return self.cluster.promised_gpus

    def hours(self, stage: StageId, seconds: float) -> float:
        """Hours of seconds of the job that has a stage."""
        return hours(self.clusters.get(stage, self.cluster), seconds, of_gpus=self.of_gpus)

    @property
    def total_h(self) -> float:
        """Hours of all jobs."""
        return sum(hours(job.cluster, seconds, of_gpus=self.of_gpus) for job, seconds in zip(self.jobs, self.job_s, strict=True))

    @cached_property
    def wall_s(self) -> float:
        """Seconds until all jobs have ended, if each starts as soon as it can."""
        return makespan(self.job_s, parent_jobs([job.stages for job in self.jobs]), slots_of(self.cluster))

    @cached_property
    def longest_s(self) -> float:
        """Seconds of the longest chain of jobs that wait for each other: no number of slots makes the run shorter."""
        return makespan(self.job_s, parent_jobs([job.stages for job in self.jobs]), None)

    @cached_property
    def alone_h(self) -> float:
        """Hours if each cell ran alone, in a job of its own."""
        return sum(row.alone_h for row in self.rows)

    @property
    def joules(self) -> float | None:
        """Joules of all rows; None unless they are known of each."""
        return known_sum(row.joules for row in self.rows)

    @cached_property
    def rows(self) -> list[Row]:
        """A row for each pruning of each model, and before them what several prunings of a model share. A job's start is divided among its stages."""
        prunings: dict[str, dict[str, None]] = {}
        for planned in self.cells:
            prunings.setdefault(planned.cell.model.label, {SHARED: None})[planned.cell.pruning] = None
        table = {(model, pruning): Row(model=model, pruning=pruning) for model, of_model in prunings.items() for pruning in of_model}
        self._add_stages(table)
        for planned in self.cells:
            self._add_cell(table[planned.cell.model.label, planned.cell.pruning], planned)
        return [row for row in table.values() if row.cells or row.own_h]

    def _add_stages(self, table: Mapping[tuple[str, str], Row]) -> None:
        users: dict[StageId, set[str]] = {}
        for planned in self.cells:
            for stage in planned.stages:
                users.setdefault(stage, set()).add(planned.cell.pruning)
        for job in self.jobs:
            start_s = self.knowledge.start_s / len(job.stages)
            for spec in job.stages:
                prunings = users[spec.id]
                row = table[spec.model.label, SHARED if len(prunings) > 1 else next(iter(prunings))]
                row.own_h += self.hours(spec.id, start_s + self._stage_s(spec.id))
                if (cost := self.stages.get(spec.id)) is not None:
                    row.file_bytes += cost.file_bytes
                    row.joules = known_sum((row.joules, cost.joules))

    def _add_cell(self, row: Row, planned: PlannedCell) -> None:
        last, end_s = planned.stages[-1], self.measurements_s[planned.cell.id]
        row.cells += 1
        row.own_h += self.hours(last, end_s)
        row.alone_h += self.hours(last, self.knowledge.start_s + end_s) + sum(self.hours(stage, self._stage_s(stage)) for stage in planned.stages)
        row.file_bytes += RECORD_BYTES

    @property
    def checkpoint_bytes(self) -> int:
        """The bytes of the checkpoints that lie on the disk while the jobs run: two of each stage in training, and a third while it is written."""
        keys = {self.knowledge.keys.of(spec, shape_of(job.cluster)) for job in self.jobs for spec in job.stages if spec.id in self.stages}
        slots = slots_of(self.cluster)
        at_work = len(self.jobs) if slots is None else min(slots, len(self.jobs))
        return 3 * at_work * max((self.knowledge.checkpoint_bytes(key) for key in keys), default=0)
