"""What is known of the work of a plan: learned from records, kept from a previous timing, or timed now."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.cost.estimate import slots_of
from harness.cost.knowledge import Knowledge
from harness.cost.learned import Learned, learned
from harness.cost.timing import TimingError, kept_times, timed
from harness.cost.work import Keys, WorkKey, shape_of
from harness.grid.read import Grid
from harness.submit.data_first import cores, data_sets, missing, prepare_here, title, written_here
from jobs.experiment.cell import Cell
from jobs.experiment.job import JobSpec
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, DataSpec

Wanted = Mapping[WorkKey, tuple[Cell, ClusterSpec]]


def works(jobs: Iterable[JobSpec]) -> dict[WorkKey, tuple[Cell, ClusterSpec]]:
    """A cell, and the cluster of its job, for each work of the jobs."""
    wanted: dict[WorkKey, tuple[Cell, ClusterSpec]] = {}
    keys = Keys()
    cells = {(planned.cell.id, id(job.cluster)): (planned.cell, job.cluster) for job in jobs for planned in job.cells}
    for cell, cluster in cells.values():
        for untuned in cell.untuned():
            wanted.setdefault(keys.of(untuned, shape_of(cluster)), (untuned, cluster))
    return wanted


def gathered(grid: Grid, run: RunFolder, runs: Path, jobs: Sequence[JobSpec], *, anew: bool, can_run: bool) -> Knowledge:
    """What is known, once what no file tells has been timed.

    anew: works of which no record tells are timed even if previous times are kept. can_run: this machine can run the jobs, or submit them.
    Raises TimingError, SchedulerError, OSError.
    """
    wanted = works(jobs)
    known = from_records(run, runs, wanted)
    clusters = {key: cluster for key, (_, cluster) in wanted.items()}
    times = kept_times(runs, clusters)
    to_time = [key for key in wanted if key not in known and (anew or key not in times)]
    if to_time and not can_run:
        untold = ", ".join(sorted({wanted[key][0].model.label for key in to_time}))
        raise TimingError(f"no record here tells how long {untold} takes, and no SLURM answers here to time it: estimate on a login node")
    if to_time:
        write_data(grid.cluster, data_sets(wanted[key][0] for key in to_time))
        slots = slots_of(grid.cluster)
        side_by_side = min(len(jobs), slots) if slots else 1
        times |= timed(runs, [wanted[key] for key in to_time], grid.plugins, name=grid.name, side_by_side=side_by_side)
    labels = {key: cell.model.label for key, (cell, _) in wanted.items()}
    return Knowledge(learned=known, times=times, labels=labels, timed_now=frozenset(to_time))


def from_records(run: RunFolder, runs: Path, wanted: Wanted) -> dict[WorkKey, Learned]:
    """What records tell, cluster by cluster."""
    known: dict[WorkKey, Learned] = {}
    for local in (True, False):
        keys = {key for key, (_, cluster) in wanted.items() if (cluster.kind != "slurm") == local}
        known |= learned(run, runs, keys, local=local) if keys else {}
    return known


def write_data(cluster: ClusterSpec, data: Sequence[DataSpec]) -> None:
    """Writes data sets that take seconds. Raises TimingError for those that take longer and are not written yet."""
    slow = [spec for spec in missing(cluster, data) if not written_here(spec)]
    if slow:
        names = ", ".join(map(title, slow))
        raise TimingError(f"steps are timed on the real images, and {names} is not written yet: run python -m harness.prepare with this grid first")
    if not prepare_here(cluster, data, workers=cores(), quiet=True):
        raise TimingError("the data could not be written")


def data_lines(cluster: ClusterSpec, data: Sequence[DataSpec]) -> list[str]:
    """How large the written files of each data set are."""
    from jobs.data.prepare import data_folder
    from jobs.data.space import shown

    lines = []
    for spec in data:
        folder = data_folder(spec, Path(cluster.cache), cluster.hash_data)
        files = [Path(path).expanduser() for path in (spec.path, spec.test_path) if path] if folder is None else list(folder.glob("*"))
        size = sum(path.stat().st_size for path in files if path.is_file())
        lines.append(f"{title(spec)}: {f'{shown(size)}, written already' if size else 'not written yet'}")
    return lines
