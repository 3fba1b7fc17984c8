"""Orders of a small real grid, for tests that run no network."""

from pathlib import Path

from harness.grid.read import Grid, read_grid
from harness.plan.jobs import make_jobs, planned_cells
from harness.plan.stages import make_graph
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.records import Environment, Record
from jobs.experiment.run_folder import RunFolder

GRID = """
name: small
recipe: {epochs: 1, finetune_epochs: 1}
models: [vim_micro]
pruning: [dense, {method: magnitude, sparsity: [0.5, 0.9]}]
seeds: [0, 1]
cluster: {kind: local, max_parallel: 2, stages_per_job: STAGES}
"""


def small_grid(tmp_path: Path, stages_per_job: int = 1) -> Grid:
    """One model, three pruning methods, two seeds: 2 trunks with 3 children each."""
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.replace("STAGES", str(stages_per_job)))
    return read_grid(path)


def orders_of(grid: Grid, run: RunFolder) -> tuple[list[JobSpec], tuple[PlannedCell, ...]]:
    """Everything that is to be run of a grid."""
    plan = make_graph(grid.cells)
    paths = planned_cells(grid, plan)
    return make_jobs(grid, plan, run, paths), paths


def finished(run: RunFolder, order: JobSpec, path: PlannedCell) -> Record:
    """A record as a job would leave it, without numbers: a fake that only marks the cell as ended well."""
    surroundings = Environment(
        commit=None, dirty=None, python="", versions={}, host="", cpu="", gpu=None, ranks=1, threads=1, loader="", scan="", data_sha256=""
    )
    return Record(
        id=path.cell.id, grid=order.grid, model=path.cell.model.label, pruning=path.cell.pruning, seed=path.cell.seed, spec=path.cell.to_json(),
        stages=list(path.stages), status="done", environment=surroundings, started="", finished="",
    )  # fmt: skip
