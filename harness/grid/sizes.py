"""The sizes of jobs that the entries of a grid make of its profile: which there are, and what is wrong with them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.grid.axes import Axes, Choice
from harness.grid.resources import KEY, with_resources
from harness.grid.yaml_source import Report
from jobs.experiment.augment_limits import mixes, odd_micro_batch
from jobs.experiment.limits import Violation, batch_conflict, cluster_conflicts
from jobs.experiment.specs import ClusterSpec, RecipeSpec

Together = Callable[..., bool]  # whether a cell has these choices, each given by the name of its axis


@dataclass(frozen=True, kw_only=True)
class Size:
    """The cluster of the jobs of some choices."""

    cluster: ClusterSpec
    choices: dict[str, Choice[Any]]  # by axis: a model, and a pruning where that has resources of its own

    @property
    def decider(self) -> Choice[Any]:
        """The choice whose entry had the last word."""
        return list(self.choices.values())[-1]


def sizes(axes: Axes, cluster: ClusterSpec) -> Iterator[Size]:
    """Every size that the entries make of a profile."""
    for model in axes.model:
        if model.resources:
            yield Size(cluster=with_resources(cluster, model.resources), choices={"model": model})
        for pruning in axes.pruning:
            if pruning.resources:
                both = with_resources(cluster, model.resources, pruning.resources)
                yield Size(cluster=both, choices={"model": model, "pruning": pruning})


def check_sizes(axes: Axes, cluster: ClusterSpec, together: Together, report: Report) -> None:
    """Reports entries whose resources cannot be had together, or whose ranks cannot divide a batch.

    On this machine the resources of entries do not count, so that one grid runs here and on a cluster. A note says so.
    """
    if cluster.kind != "slurm":
        giving = {choice.key: choice for choice in (*axes.model, *axes.pruning) if choice.resources}
        for choice in giving.values():
            text = f"note: this counts on SLURM alone; here (kind: {cluster.kind}) all jobs have the size that the grid's own cluster gives"
            report.note(choice.line_of(KEY), f"{choice.key}.{KEY}", text)
        return
    used = [size for size in sizes(axes, cluster) if together(**size.choices)]
    known = {(problem.key, problem.message) for problem in report.problems}
    for size in used:
        for violation in problems_of(size, axes.recipe, together):
            key, message = f"{size.decider.key}.{KEY}.{violation.field}".rstrip("."), str(violation)
            if (key, message) not in known:
                known.add((key, message))
                report.add(size.decider.line_of(KEY), key, message)
    note_ranks(used, axes, cluster, report)


def problems_of(size: Size, recipes: Sequence[Choice[RecipeSpec]], together: Together) -> Iterator[Violation]:
    """What is wrong with jobs of one size."""
    yield from cluster_conflicts(size.cluster)
    for recipe in recipes:
        if together(**size.choices, recipe=recipe) and (problem := ranks_problem(recipe.value, size.cluster.ranks)):
            yield Violation(field="", rule=f"batch_size of the recipe of line {recipe.line}: {problem}")


def ranks_problem(recipe: RecipeSpec, ranks: int) -> str | None:
    """Why a recipe's batch cannot be divided among ranks; None if it can."""
    if problem := batch_conflict(recipe.batch_size, recipe.micro_batch_size, ranks):
        return problem
    return odd_micro_batch(recipe.batch_size, recipe.micro_batch_size, ranks) if mixes(recipe) else None


def note_ranks(used: Sequence[Size], axes: Axes, cluster: ClusterSpec, report: Report) -> None:
    """Says where rows will stand in tables of their own: a leaderboard ranks rows that have ranks and threads in common."""
    plain = any(model.resources is None for model in axes.model)
    seen = {width(cluster)} if plain else set()
    for size in used:
        seen.add(width(size.cluster))
        if len(seen) > 1:
            text = "note: its cells keep their ids, but train on other ranks or threads than others of this grid, so a leaderboard ranks them apart"
            report.note(size.decider.line_of(KEY), f"{size.decider.key}.{KEY}", text)
            return


def width(cluster: ClusterSpec) -> tuple[int, int]:
    """What of a size stands in the key of a row."""
    return cluster.ranks, cluster.cpus_per_task
