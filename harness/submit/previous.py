"""The jobs of previous launches on SLURM: the stages that living jobs have, and what is done about jobs that ended before their stage did."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.monitor.incidents import Incident, incidents
from harness.monitor.proposals import given_since, proposals
from harness.monitor.survey import Survey, failed_stages, survey
from harness.plan.stages import StageGraph
from harness.text import counted
from jobs.cluster.slurm import SchedulerSilent
from jobs.experiment.ids import CellId, JobId, StageId
from jobs.experiment.index import RunIndex, RunIndexError, read_index
from jobs.experiment.job import PlannedCell
from jobs.experiment.records import Failure
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.recovery.micro_batch import halve_micro_batch, stored_reason, with_stored_micro_batch
from jobs.recovery.nodes import blame, blame_lost_nodes
from jobs.worker.failures import attempt_started

SHOWN = 8  # proposals, at most


@dataclass(frozen=True, kw_only=True)
class PreviousJobs:
    """The jobs of previous launches that live, and what was done about those that have ended."""

    living: Mapping[StageId, JobId]  # by the stages that they have
    cells: frozenset[CellId] = frozenset()  # the cells of those launches: their jobs measure no others
    messages: tuple[str, ...] = ()


def previous_jobs(run: RunFolder, graph: StageGraph, cluster: ClusterSpec, clusters: Mapping[StageId, ClusterSpec]) -> PreviousJobs:
    """The jobs that a new launch has to respect. Stages that ran out of memory get smaller micro-batches, and nodes that failed are counted.

    cluster: the profile's. clusters: of all stages of the graph.

    Raises SchedulerSilent if SLURM does not say which jobs live: a launch could then run a stage twice.
    """
    if run.index_path() is None:
        return PreviousJobs(living={})
    surveyed = survey(run, index=index_of(run, cluster), launching=False)
    if surveyed.silent:
        raise SchedulerSilent(surveyed.silent)
    failed = failed_stages(surveyed.files)  # their job may live for its other stages
    living = {
        stage: job.job for stage in surveyed.job_of if stage not in failed and not surveyed.job_of[stage].local and (job := surveyed.alive(stage))
    }
    planned = [incident for incident in incidents(run, surveyed) if incident.stage in graph.stages]
    settled = [message for incident in planned if (message := settle(run, graph, clusters[incident.stage], surveyed, incident))]
    starved = [incident for incident in planned if not has_more(surveyed, clusters[incident.stage], incident)]
    messages = tuple(dict.fromkeys([*settled, *proposals(surveyed, starved[:SHOWN])]))
    return PreviousJobs(living=living, cells=frozenset(surveyed.index.cells), messages=messages)


def has_more(surveyed: Survey, cluster: ClusterSpec, incident: Incident) -> bool:
    """True if a stage's cluster now gives it more than its last job had."""
    submission = surveyed.job_of.get(incident.stage)
    return submission is not None and given_since(submission, cluster.timeout_min, cluster.mem_gb, incident.kind)


def index_of(run: RunFolder, cluster: ClusterSpec) -> RunIndex:
    """The index of the run folder. An empty one if it is damaged: this launch writes it anew."""
    try:
        return read_index(run)
    except RunIndexError as error:
        print(f"warning: {error}", file=sys.stderr)
        return RunIndex(grid=run.path.name, file="", cluster=cluster.kind, stages={}, cells={})


def settle(run: RunFolder, graph: StageGraph, cluster: ClusterSpec, surveyed: Survey, incident: Incident) -> str:
    """What was done about a stage whose job ended before it did; empty if nothing had to be done. `cluster`: the stage's."""
    folder, spec = run.stage_dir(incident.stage), graph.stages[incident.stage]
    if incident.policy == "halve":
        reason = f"SLURM job {surveyed.job_of[incident.stage].job}: {incident.kind}"
        if stored_reason(folder) == reason:
            return ""
        micro_batch = halve_micro_batch(with_stored_micro_batch(spec, folder, cluster.ranks), folder, cluster.ranks, reason)
        if micro_batch is not None:
            return f"stage {incident.stage} ran out of memory: it goes on with micro-batches of {micro_batch} images, the global batch kept"
        message = f"{reason}, with one image at a time: see {incident.log}"
        run.write_failure(incident.stage, Failure(kind="OutOfMemory", message=message, stage=incident.stage, host=incident.node))
        return f"stage {incident.stage} ran out of memory with one image at a time: it has failed"
    several_nodes = set(incident.node) & set("[,")
    if incident.policy == "elsewhere" and not blame_lost_nodes(run, folder, cluster) and incident.node and not several_nodes:
        blame(run, incident.node, f"{surveyed.job_of[incident.stage].job}-end", attempt_started(folder), incident.kind)
        return f"stage {incident.stage} lost its node {incident.node}"
    return ""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The cells of a launch, by who runs the rest of their stages."""

    own: tuple[PlannedCell, ...]  # this launch runs them
    elsewhere: tuple[PlannedCell, ...]  # living jobs of a previous launch have all their stages
    dependent: tuple[PlannedCell, ...]  # this launch runs them, after stages that such jobs have

    def messages(self, living: Mapping[StageId, JobId], *, queued: bool) -> list[str]:
        """Lines for people about the cells that depend on living jobs. `queued`: dependent cells are submitted, to run after those jobs."""
        jobs = sorted({living[stage] for planned in (*self.elsewhere, *self.dependent) for stage in planned.stages if stage in living})
        shown = ", ".join(map(str, jobs[:4])) + (f" ... {jobs[-1]}, {len(jobs)} in all" if len(jobs) > 4 else "")
        lines = []
        if self.elsewhere:
            cells = counted(len(self.elsewhere), "cell")
            lines.append(f"with jobs of a previous launch, which SLURM still has ({shown}): {cells}, not submitted again")
        if self.dependent:
            cells = counted(len(self.dependent), "cell")
            when = "queued behind them" if queued else "launch again when they have ended"
            lines.append(f"start from stages of jobs of a previous launch ({shown}): {cells}, {when}")
        return lines


def assign(run: RunFolder, cells: Sequence[PlannedCell], previous: PreviousJobs) -> Assignment:
    """Who runs the rest of each cell."""
    own: list[PlannedCell] = []
    elsewhere: list[PlannedCell] = []
    dependent: list[PlannedCell] = []
    for planned in cells:
        lost = planned.lost(run.given_up)
        todo = [stage for stage in planned.stages if not run.done(stage) and stage not in lost] or [planned.stages[-1]]
        held = [stage in previous.living for stage in todo]
        if all(held) and planned.cell.id in previous.cells:
            elsewhere.append(planned)
        else:
            (dependent if any(held) else own).append(planned)
    return Assignment(own=tuple(own), elsewhere=tuple(elsewhere), dependent=tuple(dependent))
