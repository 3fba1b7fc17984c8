"""From stages to jobs: which stages one job runs, for which cells, and which jobs it waits for."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from harness.grid.read import Grid
from harness.plan.sizes import stage_clusters
from harness.plan.stages import StageGraph
from jobs.cluster.submitit_jobs import local_slots
from jobs.experiment.ids import StageId
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.plugins import copy_in
from jobs.experiment.rewinds import missing_steps
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec


def planned_cells(grid: Grid, graph: StageGraph) -> tuple[PlannedCell, ...]:
    """Every cell with the stages that lead to it."""
    return tuple(PlannedCell(cell=cell, stages=graph.paths[cell.id], trials=graph.trials.get(cell.id, ())) for cell in grid.cells)


def done_stages(graph: StageGraph, run: RunFolder) -> frozenset[StageId]:
    """Stages that have left their weights, and have kept those at every step that this graph rewinds to."""
    done = frozenset(stage for stage in graph.stages if run.done(stage))
    return done - set(to_replay(graph, run))


def to_replay(graph: StageGraph, run: RunFolder) -> list[StageId]:
    """Finished stages that did not keep the weights at a step that is needed now. They are trained again up to that step; their results stay."""
    keeping = ((spec.id, spec.stage.keep_steps) for spec in graph.stages.values() if spec.stage.keep_steps)
    return [stage for stage, steps in keeping if run.export_dir(stage).is_dir() and missing_steps(run.stage_dir(stage), steps)]


def make_jobs(grid: Grid, graph: StageGraph, run: RunFolder, cells: Sequence[PlannedCell], held: Collection[StageId] = ()) -> list[JobSpec]:
    """The jobs that run `cells`, parents first. They hold the stages that are not done, and the last stage of every cell, which has no record yet.

    held: stages that jobs of a previous launch have. They are left out, but for the last stage of a cell: a job of this launch measures the cell.
    """
    done = done_stages(graph, run).union(held)
    out_of_reach = done.union(*(planned.lost(run.given_up) for planned in cells if planned.trials))  # a trial that has failed is spent
    todo = {stage for planned in cells for stage in planned.stages if stage not in out_of_reach} | {planned.stages[-1] for planned in cells}
    parents = {spec.id: spec.parent or spec.teacher for spec in graph.stages.values()}
    clusters = stage_clusters(grid, graph)
    to_divide = [spec for spec in graph.stages.values() if spec.id in todo]
    training, choices = ([spec for spec in to_divide if bool(spec.trials) is choosing] for choosing in (False, True))
    lists = divide_by_size(training, clusters, grid.cluster.stages_per_job, local_slots(grid.cluster), parents)
    lists = with_choices(lists, choices, clusters, grid.cluster.stages_per_job, held)
    cells_of: dict[StageId, list[int]] = {}
    for index, planned in enumerate(cells):
        for stage in planned.stages:
            cells_of.setdefault(stage, []).append(index)
    plugins = tuple(copy_in(run, loaded.plugin.sha256) for loaded in grid.plugins)
    return [
        JobSpec(
            plugins=plugins,
            run=str(run.path.resolve()),
            grid=grid.name,
            stages=stages,
            cells=tuple(cells[index] for index in sorted({index for spec in stages for index in cells_of.get(spec.id, [])})),
            cluster=clusters[stages[0].id],
        )
        for stages in lists
    ]


def divide_by_size(
    stages: Sequence[StageSpec],
    clusters: Mapping[StageId, ClusterSpec],
    stages_per_job: int,
    slots: int,
    parents: Mapping[StageId, StageId | None],
) -> list[tuple[StageSpec, ...]]:
    """As `divide`, with stages of one cluster in each job. Clusters are told apart as objects; `parents`: of all stages, the done ones too."""
    jobs: list[tuple[StageSpec, ...]] = []
    for group in by_size(stages, clusters, nearest_to_do(stages, parents)):
        jobs += divide(group, stages_per_job, slots=-(-slots * len(group) // len(stages)), parents=parents)
    return jobs


def nearest_to_do(stages: Collection[StageSpec], parents: Mapping[StageId, StageId | None]) -> dict[StageId, StageId | None]:
    """For each of `stages`, those to do, the nearest stage before it that is to do as well. `parents`: of all stages, the done ones too."""
    todo = {spec.id for spec in stages}
    nearest: dict[StageId, StageId | None] = {}
    for spec in stages:
        above = spec.parent or spec.teacher
        while above is not None and above not in todo:
            above = parents.get(above)
        nearest[spec.id] = above
    return nearest


def by_size(stages: Sequence[StageSpec], clusters: Mapping[StageId, ClusterSpec], nearest: Mapping[StageId, StageId | None]) -> list[list[StageSpec]]:
    """The stages in groups of one cluster each, parents' groups first. `stages`: those to do, parents first; `nearest`: see `nearest_to_do`.

    A stage that needs another size of job than the stage before it waits for that stage's job. Stages that wait for different such stages are in
    different groups, so that no job waits for more than it has to, and none for itself.
    """
    border: dict[StageId, StageId | None] = {}  # the nearest stage before each that is of another size
    depth: dict[StageId, int] = {}
    groups: dict[tuple[int, int, StageId | None], list[StageSpec]] = {}
    for spec in stages:
        above = nearest[spec.id] or (spec.rewind if spec.rewind in nearest else None)
        crosses = above is not None and clusters[above] is not clusters[spec.id]
        border[spec.id] = above if crosses or above is None else border[above]
        depth[spec.id] = 0 if above is None else depth[above] + crosses
        groups.setdefault((depth[spec.id], id(clusters[spec.id]), border[spec.id]), []).append(spec)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]  # stable: groups of one depth as their stages come


def with_choices(
    jobs: Sequence[tuple[StageSpec, ...]],
    choices: Sequence[StageSpec],
    clusters: Mapping[StageId, ClusterSpec],
    stages_per_job: int,
    held: Collection[StageId] = (),
) -> list[tuple[StageSpec, ...]]:
    """The jobs with the stages that choose among trials: each at the end of the one job that has what it comes after, else in a job behind all.

    clusters: of all stages, told apart as objects; a job has one. held: stages that jobs of a previous launch have.
    """
    lists = [list(job) for job in jobs]
    job_of = {spec.id: number for number, job in enumerate(jobs) for spec in job}
    apart: dict[int, list[StageSpec]] = {}  # by cluster
    for choice in choices:
        own = clusters[choice.id]
        before = {job_of[stage] for stage in choice.before if stage in job_of}
        only = jobs[before.pop()] if len(before) == 1 and not any(stage in held for stage in choice.before) else ()
        if only and clusters[only[0].id] is own:
            lists[job_of[only[0].id]].append(choice)
        else:
            apart.setdefault(id(own), []).append(choice)
    cut = [group[first : first + stages_per_job] for group in apart.values() for first in range(0, len(group), stages_per_job)]
    return [tuple(job) for job in (*lists, *cut)]


def divide(
    stages: Iterable[StageSpec], stages_per_job: int, slots: int = 1, parents: Mapping[StageId, StageId | None] | None = None
) -> list[tuple[StageSpec, ...]]:
    """The stages of each job, at most `stages_per_job`, parents first. `stages`: those to do, parents first; any other parent counts as done.

    parents: of all stages, the done ones too. A stage behind a done parent is placed behind the nearest stage before it that is to do, since it, or a
    stage behind it, may rewind to that one.

    A tree of stages that fits goes into one job, root first, together with other trees that fit beside it. A larger tree is cut: its first job takes
    the root and goes on depth first. The subtrees that hang from that job are divided by the same rule, and wait for it. So unrelated trees never
    wait for each other. If full jobs would be fewer than `slots` (the jobs that can run at the same time), jobs are made smaller, down to one stage,
    so that every slot has work: starting a job costs less than an idle core.
    """
    if stages_per_job < 1 or slots < 1:
        raise ValueError(f"stages_per_job and slots must be at least 1, got {stages_per_job} and {slots}")
    todo = {spec.id: spec for spec in stages}
    size = min(stages_per_job, max(1, -(-len(todo) // slots)))
    children: dict[StageId | None, list[StageId]] = {}
    for stage, nearest in nearest_to_do(todo.values(), parents or {}).items():
        above = todo[stage].rewind if nearest is None and todo[stage].rewind in todo else nearest
        children.setdefault(above, []).append(stage)
    return [tuple(todo[stage] for stage in job) for job in _divided(children, size)]


def _divided(children: Mapping[StageId | None, list[StageId]], size: int) -> list[list[StageId]]:
    """Stages by job. A job stands behind those that it waits for."""
    jobs: list[list[StageId]] = []
    waiting: list[list[StageId]] = [children.get(None, [])]  # groups of roots that wait for the same job
    for roots in waiting:
        current: list[StageId] = []
        for root in roots:
            tree = list(_subtree(root, children, size + 1))
            if len(tree) > size:
                jobs.append(tree[:size])
                current, taken = [], set(tree[:size])
                waiting.append([child for stage in tree[:size] for child in children.get(stage, []) if child not in taken])
                continue
            if not current or len(current) + len(tree) > size:
                current = []
                jobs.append(current)
            current += tree
    return jobs


def _subtree(root: StageId, children: Mapping[StageId | None, list[StageId]], limit: int) -> Iterator[StageId]:
    """A stage and its descendants, depth first, up to `limit` of them."""
    stack = [root]
    while stack and limit:
        limit -= 1
        stage = stack.pop()
        yield stage
        stack += reversed(children.get(stage, []))


def parent_jobs(jobs: Sequence[Sequence[StageSpec]], holders: Mapping[StageId, int] | None = None, first: int = 0) -> list[frozenset[int]]:
    """For each job, given as its stages, the numbers of the jobs that it waits for: they have the stages that its own start from.

    Jobs are numbered from `first`. holders: the numbers of other jobs, by the stages that those have. If both have a stage, the job in `jobs` counts.
    """
    job_of = {**(holders or {}), **{spec.id: number for number, stages in enumerate(jobs, first) for spec in stages}}
    return [
        frozenset(job_of[stage] for spec in stages for stage in spec.before if stage in job_of) - {number}
        for number, stages in enumerate(jobs, first)
    ]


def levels(parents: Iterable[Collection[int]]) -> list[int]:
    """The level of each job: 0 if it waits for no other, else one more than the highest level that it waits for. Parents come first."""
    depths: list[int] = []
    for waits_for in parents:
        depths.append(1 + max((depths[parent] for parent in waits_for), default=-1))
    return depths
