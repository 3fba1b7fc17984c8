"""A small real grid with its jobs, for tests that run no network."""

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


def jobs_of(grid: Grid, run: RunFolder) -> tuple[list[JobSpec], tuple[PlannedCell, ...]]:
    """The jobs of everything that is to be run of a grid, and all its cells."""
    graph = make_graph(grid.cells)
    cells = planned_cells(grid, graph)
    return make_jobs(grid, graph, run, cells), cells


def finished(job: JobSpec, planned: PlannedCell) -> Record:
    """The record of a cell that has ended well, without numbers."""
    environment = Environment(
        commit=None, dirty=None, python="", versions={}, host="", cpu="", gpu=None, ranks=1, threads=1, loader="", scan="", data_sha256=""
    )
    return Record(
        id=planned.cell.id, grid=job.grid, model=planned.cell.model.label, pruning=planned.cell.pruning, seed=planned.cell.seed,
        spec=planned.cell.to_json(), stages=list(planned.stages), status="done", environment=environment, started="", finished="",
    )  # fmt: skip


TUNED = """
name: tuned
models: [vim_micro]
pruning: [{method: magnitude, sparsity: 0.5}]
tune: {TUNE}
seeds: [0]
cluster: {kind: local, max_parallel: 2, stages_per_job: STAGES}
"""


def tuned_grid(tmp_path: Path, tune: str = "finetune_lr: [1e-4, 1e-3, 2e-3]", stages_per_job: int = 1) -> Grid:
    """One cell that chooses among trials."""
    path = tmp_path / "tuned.yaml"
    path.write_text(TUNED.replace("TUNE", tune).replace("STAGES", str(stages_per_job)))
    return read_grid(path)
