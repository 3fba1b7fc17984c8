"""What `--dry-run` prints: the cells, the stages that they share, the epochs that sharing saves, the jobs."""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from harness.grid.read import Grid
from harness.plan.jobs import Pack
from harness.plan.stages import StageGraph


def describe(plan: StageGraph, grid: Grid, packs: Sequence[Pack], done: AbstractSet[str] = frozenset()) -> str:
    """What `--dry-run` prints: the cells, the stages that they share, the epochs that sharing saves, the jobs. `done`: ids of finished stages."""
    parts = [_cells(grid), _stages(plan), _epochs(plan, done), _jobs(grid, packs, len(plan.stages), len(done & plan.stages.keys()))]
    return "\n\n".join(parts)


def _cells(grid: Grid) -> str:
    """Models by pruning methods, the seeds (and data sets and recipes, where there are several) counted."""
    counts = Counter((cell.model.label, cell.pruning) for cell in grid.cells)
    models = list(dict.fromkeys(model for model, _ in counts))
    methods = list(dict.fromkeys(method for _, method in counts))
    seeds = sorted({cell.seed for cell in grid.cells})
    rows = [["cells", *models]] + [[method, *(str(counts[model, method] or "-") for model in models)] for method in methods]
    shown = ", ".join(map(str, seeds)) if len(seeds) <= 10 else f"{seeds[0]} to {seeds[-1]}, {len(seeds)} of them"
    others = {"data sets": len({id(cell.data) for cell in grid.cells}), "recipes": len({id(cell.recipe) for cell in grid.cells})}
    several = "".join(f", {count} {what}" for what, count in others.items() if count > 1)
    return f"{grid.name}: {len(grid.cells)} cells (seeds {shown}{several})\n{_table(rows)}"


def _stages(plan: StageGraph) -> str:
    """Kinds of stages: how many there are, and how many cells share each."""
    users = Counter(stage for path in plan.paths.values() for stage in path)
    kinds: dict[tuple[str, str, int], list[int]] = {}
    for named, spec in plan.stages.items():
        method = spec.stage.method.name if spec.stage.method else "-"
        kinds.setdefault((spec.stage.name, method, spec.stage.epochs), []).append(users[named])
    rows = [["stage", "pruning", "epochs", "stages", "cells sharing each"]]
    for (name, method, epochs), shared in kinds.items():
        low, high = min(shared), max(shared)
        rows.append([name, method, str(epochs), str(len(shared)), str(low) if low == high else f"{low} to {high}"])
    return _table(rows)


def _epochs(plan: StageGraph, done: AbstractSet[str]) -> str:
    """Training epochs: to do, done, and saved by sharing."""
    epochs = {named: spec.stage.epochs for named, spec in plan.stages.items()}
    alone = sum(epochs[stage] for path in plan.paths.values() for stage in path)
    total = sum(epochs.values())
    saved = f"{alone - total} saved by sharing ({100 * (alone - total) / alone:.0f}% of {alone})" if alone else "none saved"
    past = sum(count for named, count in epochs.items() if named in done)
    return f"training epochs: {total}, {saved}" + (f"; {past} done, {total - past} to do" if past else "")


def _jobs(grid: Grid, packs: Sequence[Pack], stages: int, done: int) -> str:
    """Jobs, their ranks, and how they wait for each other."""
    cluster = grid.cluster
    levels = Counter(one.level for one in packs)
    waits = f" in {len(levels)} levels of {', '.join(str(levels[level]) for level in sorted(levels))}" if len(levels) > 1 else ""
    to_do = sum(len(one.stages) for one in packs)
    most = max((len(one.stages) for one in packs), default=0)
    ranks = f"{cluster.ranks} rank{'s' if cluster.ranks > 1 else ''} each ({cluster.nodes} x {cluster.tasks_per_node})"
    jobs = f"{len(packs)}{waits}, up to {most} stages each, {ranks}, {cluster.kind}" if packs else "none"
    return f"stages: {stages}, {done} done, {to_do} to do\njobs: {jobs}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) if not index else cell.rjust(width) for index, (cell, width) in enumerate(zip(row, widths))) for row in rows]
    return "\n".join(f"  {line}".rstrip() for line in lines)
