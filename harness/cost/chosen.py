"""The cells that a run keeps to because of its budget: chosen once, kept in the run folder, so that each launch runs the same."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from harness.cost.budget import BudgetError, CellRow, Choice, Prices, choose, hours_of, rows_of
from harness.cost.estimate import Estimate, hours
from harness.cost.learned import measured_s, sample_of
from harness.cost.table import number
from harness.grid.read import Grid
from harness.plan.sizes import stage_clusters
from harness.plan.stages import StageGraph
from harness.text import counted, shortened
from jobs.experiment.files import write_json
from jobs.experiment.ids import CellId, StageId
from jobs.experiment.index import RunIndexError, read_index
from jobs.experiment.records import RecordError, Strict, now, read_as
from jobs.experiment.run_folder import BUDGET, RunFolder

NO_BUDGET = "none"  # as a user writes it
NAMED = 12  # rows of a model that a line names


class KeptChoice(Strict):
    """What budget.json holds."""

    budget: str  # as it was given
    unit: str  # GPU or core, of the hours
    estimated_h: float  # of the chosen cells, what was done already included
    chosen: list[CellId]
    left_out: list[CellId]
    made: str  # ISO 8601, UTC


def kept_choice(run: RunFolder) -> KeptChoice | None:
    """The choice to which a run keeps; None if it has none. Raises BudgetError if the file cannot be read."""
    path = run.path / BUDGET
    try:
        return read_as(KeptChoice, path) if path.exists() else None
    except RecordError as error:
        raise BudgetError(f"{path} cannot be read, so that the cells chosen for the run's budget are not known: {error}") from error


def write_choice(run: RunFolder, choice: KeptChoice) -> None:
    """Keeps a choice."""
    write_json(run.path / BUDGET, choice.model_dump(mode="json"))


def forget_choice(run: RunFolder) -> None:
    """Lets a run have all its cells."""
    (run.path / BUDGET).unlink(missing_ok=True)


def is_for(choice: KeptChoice, grid: Grid, budget: str | None) -> bool:
    """True if a launch of `grid` with `budget` keeps to a choice: the budget is the same, and no cell is new. Without a budget it always does."""
    if budget is None:
        return True
    known = {*choice.chosen, *choice.left_out}
    return hours_of(budget) == hours_of(choice.budget) and all(cell.id in known for cell in grid.cells)


def limited(grid: Grid, cells: frozenset[CellId]) -> Grid:
    """The grid with these of its cells alone. The others are left out."""
    kept, dropped = ([cell for cell in grid.cells if (cell.id in cells) is wanted] for wanted in (True, False))
    return replace(grid, cells=tuple(kept), left_out=(*grid.left_out, *dropped))


def kept_to(grid: Grid, choice: KeptChoice) -> tuple[Grid, str]:
    """The grid with the chosen cells alone, and a sentence on it. Raises BudgetError if the grid has none of them any more."""
    left = limited(grid, frozenset(choice.chosen))
    if not left.cells:
        raise BudgetError(
            f"none of the {counted(len(choice.chosen), 'cell')} chosen for the budget of {choice.budget} is in the grid: give --budget again"
        )
    known = {*choice.chosen, *choice.left_out}
    new = sum(cell.id not in known for cell in grid.cells)
    note = f"; {counted(new, 'cell')} of the grid came later: --budget {choice.budget} chooses again" if new else ""
    others = "--budget none takes all cells, another budget chooses again"
    kept = f"this run keeps to the {len(left.cells)} of {counted(len(grid.cells), 'cell')} chosen for its budget of {choice.budget}"
    return left, f"{kept} on {choice.made[:10]}{note}; {others}"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A new choice."""

    grid: Grid  # with the chosen cells alone
    choice: KeptChoice
    text: str


def decide(grid: Grid, graph: StageGraph, run: RunFolder, whole: Estimate, budget: str) -> Decision:
    """Chooses the cells for a budget of hours, which is for the whole run: what is done counts as what it took. Raises BudgetError.

    whole: the estimate of all that is left of the grid.
    """
    previous, prices = kept_choice(run), prices_of(grid, graph, run, whole)
    begun = begun_cells(grid, graph, run)
    if previous and hours_of(budget) >= hours_of(previous.budget):
        begun = begun.union(previous.chosen)
    choice = choose(rows_of(grid.cells), prices, hours_of(budget), kept=lambda row: any(cell.id in begun for cell in row.cells))
    smaller = limited(grid, choice.cells)
    spent = total(choice, prices)
    kept = KeptChoice(
        budget=budget,
        unit="GPU" if whole.of_gpus else "core",
        estimated_h=spent,
        chosen=[cell.id for cell in smaller.cells],
        left_out=[cell.id for cell in smaller.left_out],
        made=now(),
    )
    text = described(choice, kept, len(grid.cells))
    before = previous.chosen if previous else launched_cells(run) if grid.cluster.kind == "slurm" else ()
    if dropped := set(before).intersection(kept.left_out):
        source = f"chosen for {previous.budget} left" if previous else "of a previous launch left out"
        text += f"\n  {counted(len(dropped), 'cell')} {source}; jobs that were submitted for them go on until harness.cancel ends them"
    return Decision(grid=smaller, choice=kept, text=text)


def launched_cells(run: RunFolder) -> Collection[CellId]:
    """The cells of the latest launch; none where that is not known."""
    try:
        return read_index(run).cells.keys()
    except RunIndexError:
        return ()


def begun_cells(grid: Grid, graph: StageGraph, run: RunFolder) -> frozenset[CellId]:
    """The cells that have a record, or whose last stage has started, or that of one of their trials."""
    ended = (cell.id for cell in grid.cells if run.record_path(cell.id).exists())
    last = {cell: (path[-1], *(trial.stages[-1] for trial in graph.trials.get(cell, ()))) for cell, path in graph.paths.items()}
    return frozenset(ended).union(cell for cell, stages in last.items() if any(run.stage_dir(stage).is_dir() for stage in stages))


def total(choice: Choice, prices: Prices) -> float:
    """The hours of the chosen rows."""
    paid: set[StageId] = set()
    return sum(prices.pay(row, paid) for row in choice.chosen)


def prices_of(grid: Grid, graph: StageGraph, run: RunFolder, whole: Estimate) -> Prices:
    """The hours of each stage and measurement: what it took if it is done, else the estimate, with a part of the starts of all jobs."""
    starts_s = whole.knowledge.start_s * len(whole.jobs) / max(1, len(whole.stages))
    stage_h: dict[StageId, float] = {}
    clusters = stage_clusters(grid, graph)  # of what is done, too
    for stage, cluster in clusters.items():
        estimated = whole.stages.get(stage)
        sample = sample_of(run, stage) if estimated is None else None
        took_s = estimated.seconds if estimated is not None else sample.wall_s if sample is not None else None
        stage_h[stage] = 0.0 if took_s is None else hours(cluster, took_s + starts_s, of_gpus=whole.of_gpus)
    cell_h = {
        cell: hours(clusters[path[-1]], whole.measurements_s.get(cell) or measurement_took_s(run, cell), of_gpus=whole.of_gpus)
        for cell, path in graph.paths.items()
    }
    return Prices(paths=graph.paths, stage_h=stage_h, cell_h=cell_h)


def measurement_took_s(run: RunFolder, cell: CellId) -> float:
    """How long the measurement of a done cell took; 0 if that is not known."""
    record = run.readable_record(cell)
    return (measured_s(record) if record is not None else None) or 0.0


def described(choice: Choice, kept: KeptChoice, cells: int) -> str:
    """The choice as text: what is chosen and what is left out, model by model."""
    number_of_rows = len(choice.chosen) + len(choice.left_out)
    rows = f"{len(choice.chosen)} of {counted(number_of_rows, 'row')}"
    head = f"budget of {kept.budget}: {len(kept.chosen)} of {counted(cells, 'cell')} ({rows}) for about {number(kept.estimated_h)} {kept.unit}-hours"
    lines = [head]
    for word, part in (("chosen", choice.chosen), ("left out", choice.left_out)):
        lines += [f"  {word:8}  {model}: {names}" for model, names in by_model(part).items()]
    if not any(row.control for row in choice.chosen):
        lines.append("  the grid has no dense and no random row, with which the others could be compared")
    return "\n".join(lines)


def by_model(rows: tuple[CellRow, ...]) -> Mapping[str, str]:
    """The prunings of some rows, model by model."""
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row.model, []).append(row.pruning)
    return {model: shortened(list(dict.fromkeys(prunings)), NAMED) for model, prunings in names.items()}
