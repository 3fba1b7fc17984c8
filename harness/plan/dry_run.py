"""The text that `--dry-run` prints: the cells, the stages that they share, the epochs that sharing saves, the jobs."""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from harness.grid.read import Grid
from harness.plan.jobs import levels, parent_jobs
from harness.plan.stages import StageGraph
from harness.text import counted
from jobs.experiment.ids import StageId
from jobs.experiment.job import JobSpec
from jobs.experiment.output import encodable
from jobs.experiment.specs import ClusterSpec
from jobs.experiment.trials import in_words
from models.plugins.loading import DIGITS
from models.plugins.tables import rows_of

SHOWN_TRIALS = 12


def describe(graph: StageGraph, grid: Grid, jobs: Sequence[JobSpec], done: AbstractSet[StageId] = frozenset()) -> str:
    """The text of `--dry-run`. `done`: the stages that are finished."""
    finished = len(done & graph.stages.keys())
    return "\n\n".join(
        [_cells(grid), *_tuning(grid, graph), *_plugins(grid), _stages(graph), _epochs(graph, done), _jobs(grid, jobs, len(graph.stages), finished)]
    )


def _cells(grid: Grid) -> str:
    """The number of cells by model and pruning method, and the seeds. Data sets and recipes are counted where there are several."""
    counts = Counter((cell.model.label, cell.pruning) for cell in grid.cells)
    models = list(dict.fromkeys(model for model, _ in counts))
    methods = list(dict.fromkeys(method for _, method in counts))
    seeds = sorted({cell.seed for cell in grid.cells})
    rows = [["cells", *models]] + [[method, *(str(counts[model, method] or "-") for model in models)] for method in methods]
    shown = ", ".join(map(str, seeds)) if len(seeds) <= 10 else f"{seeds[0]} to {seeds[-1]}, {len(seeds)} of them"
    others = {"data sets": len({id(cell.data) for cell in grid.cells}), "recipes": len({id(cell.recipe) for cell in grid.cells})}
    several = "".join(f", {count} {kind}" for kind, count in others.items() if count > 1)
    return f"{grid.name}: {counted(len(grid.cells), 'cell')} (seeds {shown}{several})\n{table(rows)}"


def _tuning(grid: Grid, graph: StageGraph) -> list[str]:
    """The trials of every cell; where a method's stages do not train with all tuned keys, the cells that have fewer. No text without `tune`."""
    tune = grid.cells[0].tune
    if tune is None:
        return []
    lines = [f"tuning: each cell tries {tune.budget} of the {tune.points} points of {', '.join(tune.space)}, and keeps the best on validation images"]
    lines += [f"  {number}  {in_words(values)}" for number, values in enumerate(tune.trials[:SHOWN_TRIALS], 1)]
    if tune.budget > SHOWN_TRIALS:
        lines.append(f"  and {tune.budget - SHOWN_TRIALS} more")
    fewer = Counter((cell.pruning, len(graph.trials[cell.id])) for cell in grid.cells if len(graph.trials[cell.id]) < tune.budget)
    lines += [f"  {pruning}: {counted(trials, 'trial')}: the other points change none of its stages" for pruning, trials in fewer]
    return ["\n".join(lines)]


def _plugins(grid: Grid) -> list[str]:
    """The plug-ins, each with the beginning of its digest and the rows that it adds; no text if there are none."""
    rows = [[loaded.plugin.name, loaded.plugin.sha256[:DIGITS], ", ".join(rows_of(loaded.plugin))] for loaded in grid.plugins]
    return [table([["plug-in", "sha256", "adds"], *rows])] if rows else []


def _stages(graph: StageGraph) -> str:
    """The kinds of stages, with the number of stages of each kind and the number of cells that share each stage."""
    users = Counter(stage for path in graph.paths.values() for stage in path)
    kinds: dict[tuple[str, str, int], list[int]] = {}
    for spec in graph.stages.values():
        method = spec.stage.method.name if spec.stage.method else "-"
        kinds.setdefault((spec.stage.name, method, spec.stage.epochs), []).append(users[spec.id])
    rows = [["stage", "pruning", "epochs", "stages", "cells sharing each"]]
    for (name, method, epochs), shared in kinds.items():
        low, high = min(shared), max(shared)
        rows.append([name, method, str(epochs), str(len(shared)), str(low) if low == high else f"{low} to {high}"])
    return table(rows)


def _epochs(graph: StageGraph, done: AbstractSet[StageId]) -> str:
    """The training epochs: those to do, those done, and those that sharing saves."""
    epochs = {stage: spec.stage.epochs for stage, spec in graph.stages.items()}
    unshared = sum(epochs[stage] for path in graph.paths.values() for stage in path)
    total = sum(epochs.values())
    saved = f"{unshared - total} saved by sharing ({100 * (unshared - total) / unshared:.0f}% of {unshared})" if unshared else "none saved"
    past = sum(count for stage, count in epochs.items() if stage in done)
    return f"training epochs: {total}, {saved}" + (f"; {past} done, {total - past} to do" if past else "")


def _jobs(grid: Grid, jobs: Sequence[JobSpec], stages: int, done: int) -> str:
    """The number of jobs, their ranks, and the levels in which they wait for each other."""
    counts = Counter(levels(parent_jobs([job.stages for job in jobs])))
    waits = f" in {len(counts)} levels of {', '.join(str(counts[level]) for level in sorted(counts))}" if len(counts) > 1 else ""
    to_do = sum(len(job.stages) for job in jobs)
    most = max((len(job.stages) for job in jobs), default=0)
    sizes = {id(job.cluster): job.cluster for job in jobs}  # jobs of one size share the object of their cluster
    count = Counter(id(job.cluster) for job in jobs)
    ranks = ranks_of(grid.cluster) if len(sizes) < 2 else f"of {len(sizes)} sizes"
    described = f"{len(jobs)}{waits}, up to {counted(most, 'stage')} each, {ranks}, {grid.cluster.kind}" if jobs else "none"
    several = [f"  {counted(count[own], 'job')}: {asked_of(size)}" for own, size in sizes.items()] if len(sizes) > 1 else []
    return "\n".join([f"stages: {stages}, {done} done, {to_do} to do", f"jobs: {described}", *several])


def ranks_of(cluster: ClusterSpec) -> str:
    """The ranks of a job in words."""
    return f"{cluster.ranks} rank{'s' if cluster.ranks > 1 else ''} each ({cluster.nodes} x {cluster.tasks_per_node})"


def asked_of(cluster: ClusterSpec) -> str:
    """What jobs of one size ask for."""
    asked = [
        ranks_of(cluster),
        f"{counted(cluster.gpus_per_node, 'GPU')} a node" if cluster.gpus_per_node else f"{counted(cluster.cpus_per_task, 'CPU')} a rank",
    ]
    asked += [f"{cluster.mem_gb:g} GB"] if cluster.mem_gb else []
    partition = cluster.slurm.get("partition")
    return ", ".join([*asked, f"up to {cluster.timeout_min} min", *([f"partition {partition}"] if partition else [])])


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Aligned columns: the first `left` ones to the left, the others to the right."""
    rows = [[encodable(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [text.ljust(width) if index < left else text.rjust(width) for index, (text, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return "\n".join(f"  {'  '.join(line)}".rstrip() for line in lines)
