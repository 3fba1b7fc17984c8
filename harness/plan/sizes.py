"""On which cluster each stage of a grid runs: that of its profile, with the resources that entries give in place of the profile's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.grid.read import Grid
from harness.grid.resources import Resources, with_resources
from harness.plan.stages import StageGraph, make_graph
from harness.text import counted
from jobs.experiment.cell import Cell
from jobs.experiment.ids import StageId
from jobs.experiment.run_folder import CHECKPOINTS, RunFolder
from jobs.experiment.specs import ClusterSpec, ModelSpec
from models.pruning.base import PruningMethod
from models.pruning.knobs import is_trunk


@dataclass
class Sizes:
    """The sizes of a grid's jobs. Jobs of one size have one object, so that sizes can be told apart by it."""

    grid: Grid
    known: list[ClusterSpec] = field(default_factory=list)
    given: dict[int, Resources | None] = field(default_factory=dict)  # by the id of a model or a method, which the grid holds
    made: dict[tuple[int, int], ClusterSpec] = field(default_factory=dict)  # by the ids of both: ten thousand cells have few of them

    def of(self, model: ModelSpec, method: PruningMethod | None = None) -> ClusterSpec:
        """The cluster of the jobs of a model; with a method those of what this method does."""
        pair = (id(model), id(method))
        if pair not in self.made:
            own = self.resources(method) if method else None
            self.made[pair] = self.shared(with_resources(self.grid.cluster, self.resources(model), own))
        return self.made[pair]

    def resources(self, value: ModelSpec | PruningMethod) -> Resources | None:
        """What the entry of a model or a method gives."""
        if id(value) not in self.given:
            self.given[id(value)] = self.grid.resources(value)
        return self.given[id(value)]

    def shared(self, cluster: ClusterSpec) -> ClusterSpec:
        """The object that stands for all clusters equal to this one."""
        same = next((known for known in self.known if known is cluster or known == cluster), None)
        if same is None:
            self.known.append(cluster)
        return same or cluster


def stage_clusters(grid: Grid, graph: StageGraph) -> Mapping[StageId, ClusterSpec]:
    """The cluster of each stage: with the resources of its model's entry and, where the stage is a pruning's own, those of the pruning's entry.

    The dense training is the model's. Any other stage is a pruning's own if all prunings whose cells pass through it give the same resources. Cells
    that a budget leaves out count as well: a later launch may run them, and a stage that is in training keeps its ranks.
    """
    sizes = Sizes(grid)
    if not any(choice.resources for choice in grid.choices):
        return dict.fromkeys(graph.stages, grid.cluster)
    every = (*grid.cells, *grid.left_out)
    paths = make_graph(every).paths if grid.left_out else graph.paths
    methods: dict[StageId, dict[int, PruningMethod]] = {}
    for cell in every:
        for stage in paths[cell.id]:
            methods.setdefault(stage, {})[id(cell.method)] = cell.method
    clusters = {}
    for stage, spec in graph.stages.items():
        users = [] if is_trunk(spec.stage) else list(methods[stage].values())
        agree = all(sizes.resources(method) == sizes.resources(users[0]) for method in users)
        clusters[stage] = sizes.of(spec.model, users[0] if users and agree else None)
    return clusters


def sizes_of_cells(grid: Grid, cells: Iterable[Cell]) -> list[tuple[str, ClusterSpec, list[Cell]]]:
    """Every size of jobs that some cells need: where the grid gives it, the cluster, and the cells. The first is the profile's own."""
    sizes = Sizes(grid)
    by_cluster: dict[int, tuple[str, ClusterSpec, list[Cell]]] = {id(sizes.shared(grid.cluster)): (str(grid.path), grid.cluster, [])}
    of_pair: dict[tuple[int, int], list[int]] = {}
    for cell in cells:
        pair = (id(cell.model), id(cell.method))
        if pair not in of_pair:
            clusters = {grid.location(cell.model): sizes.of(cell.model)}
            if sizes.resources(cell.method):
                clusters[grid.location(cell.method)] = sizes.of(cell.model, cell.method)
            of_pair[pair] = list(dict.fromkeys(map(id, clusters.values())))
            for where, cluster in clusters.items():
                by_cluster.setdefault(id(cluster), (where, cluster, []))
        for cluster_id in of_pair[pair]:
            by_cluster[cluster_id][2].append(cell)
    return list(by_cluster.values())


def other_ranks(run: RunFolder, clusters: Mapping[StageId, ClusterSpec]) -> list[str]:
    """Stages to run whose newest checkpoint has the states of other ranks than their jobs would have: each rank reads its own."""
    problems = []
    for stage, cluster in clusters.items():
        folder = run.stage_dir(stage) / CHECKPOINTS
        newest = max((path.name for path in folder.glob("step-*")), default=None)
        written = len(list((folder / newest).glob("rank-*.pt"))) if newest else 0
        if newest and written and written != cluster.ranks and not run.done(stage):
            ranks = f"{counted(written, 'rank')}, and its jobs would have {cluster.ranks} (nodes x tasks_per_node)"
            problems.append(f"stage {stage} has a checkpoint of {ranks}: give it as many as before, or remove {folder}, and it starts again")
    return problems
