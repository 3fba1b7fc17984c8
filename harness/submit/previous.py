"""What earlier launches of a grid left on SLURM: jobs that live and keep their stages, and jobs that ended before their stage did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.monitor.incidents import Incident, incidents
from harness.monitor.survey import Survey, failed_stages, survey
from harness.plan.stages import StageGraph
from harness.text import counted
from jobs.cluster.slurm import SchedulerSilent
from jobs.experiment.ids import JobId, StageId
from jobs.experiment.job import PlannedCell
from jobs.experiment.records import Failure
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.recovery.micro_batch import because, fitting, shrink
from jobs.recovery.nodes import blame, notice
from jobs.worker.failures import begun


@dataclass(frozen=True, kw_only=True)
class PreviousJobs:
    """Living jobs by the stages that they keep, and what was done about those that ended."""

    living: Mapping[StageId, JobId]
    cells: frozenset[str] = frozenset()  # those of the launches before: what their jobs will measure
    told: tuple[str, ...] = ()


def earlier(run: RunFolder, plan: StageGraph, cluster: ClusterSpec) -> PreviousJobs:
    """What a new launch has to respect. Stages that ran out of memory are made smaller, nodes that failed are counted.

    Raises SchedulerSilent where SLURM does not say which jobs live: launching then could run a stage twice.
    """
    if run.index_path() is None:
        return PreviousJobs(living={})
    found = survey(run, launching=False)
    if found.silent:
        raise SchedulerSilent(found.silent)
    over = failed_stages(found.files)  # its job lives for other stages
    living = {stage: job.job for stage in found.job_of if stage not in over and not found.job_of[stage].local and (job := found.alive(stage))}
    told = [line for case in incidents(run, found) if case.stage in plan.stages and (line := settle(run, plan, cluster, found, case))]
    return PreviousJobs(living=living, cells=frozenset(found.index.cells), told=tuple(told))


def settle(run: RunFolder, plan: StageGraph, cluster: ClusterSpec, found: Survey, case: Incident) -> str:
    """What was done about a stage whose job ended before it did; empty when nothing had to be."""
    folder, spec = run.stage_dir(case.stage), plan.stages[case.stage]
    if case.policy == "halve":
        reason = f"SLURM job {found.job_of[case.stage].job}: {case.kind}"
        if because(folder) == reason:
            return ""
        micro = shrink(fitting(spec, folder, cluster.ranks), folder, cluster.ranks, reason)
        if micro is not None:
            return f"stage {case.stage} ran out of memory: it goes on with micro-batches of {micro} images, the global batch kept"
        failure = Failure(kind="OutOfMemory", message=f"{reason}, with one image at a time: see {case.log}", stage=case.stage, host=case.node)
        run.write_failure(case.stage, failure)
        return f"stage {case.stage} ran out of memory with one image at a time: it has failed"
    if case.policy == "elsewhere" and not notice(run, folder, cluster) and case.node and not set(case.node) & set("[,"):
        blame(run, case.node, f"{found.job_of[case.stage].job}-end", begun(folder), case.kind)
        return f"stage {case.stage} lost its node {case.node}"
    return ""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Cells by who runs what is left of them."""

    ours: tuple[PlannedCell, ...]
    theirs: tuple[PlannedCell, ...]  # all of it is with jobs of an earlier launch
    waiting: tuple[PlannedCell, ...]  # begins with stages that such a job has

    def told(self, living: Mapping[StageId, JobId], *, queued: bool) -> list[str]:
        """What a user should know of the cells that are not ours alone. `queued`: those that wait are submitted, behind what they wait for."""
        jobs = sorted({living[stage] for path in (*self.theirs, *self.waiting) for stage in path.stages if stage in living})
        named = f"{', '.join(map(str, jobs[:4]))}{f' ... {jobs[-1]}, {len(jobs)} in all' if len(jobs) > 4 else ''}"
        lines = []
        if self.theirs:
            lines.append(f"with jobs of an earlier launch, which SLURM still has ({named}): {counted(len(self.theirs), 'cell')}, not submitted again")
        if self.waiting:
            cells = counted(len(self.waiting), "cell")
            how = "queued behind them" if queued else "launch again when those have ended"
            lines.append(f"start from what jobs of an earlier launch are at ({named}): {cells}, {how}")
        return lines


def share(run: RunFolder, left: Sequence[PlannedCell], before: PreviousJobs) -> Assignment:
    """Who runs what is left of each cell."""
    kept: dict[str, list[PlannedCell]] = {"ours": [], "theirs": [], "waiting": []}
    for path in left:
        todo = [stage for stage in path.stages if not run.done(stage)] or [path.stages[-1]]
        held = [stage in before.living for stage in todo]
        kept["theirs" if all(held) and path.cell.id in before.cells else "waiting" if any(held) else "ours"].append(path)
    return Assignment(**{name: tuple(paths) for name, paths in kept.items()})
