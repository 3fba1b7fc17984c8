"""The text of an estimate."""

from dataclasses import replace
from pathlib import Path

from harness.cost.estimate import Estimate
from harness.cost.table import described, kwh, number, seconds
from harness.cost.work import key_of, shape_of
from harness.grid.read import Grid
from harness.plan.jobs import make_jobs, planned_cells
from harness.plan.stages import make_graph
from jobs.experiment.run_folder import RunFolder
from tests.support.jobs import small_grid
from tests.support.times import TIMES, known


def estimate(grid: Grid, run: RunFolder, **changes: object) -> Estimate:
    graph = make_graph(grid.cells)
    jobs = make_jobs(grid, graph, run, planned_cells(grid, graph))
    return Estimate(graph=graph, jobs=jobs, done=(), knowledge=known(grid, TIMES.model_copy(update=changes)), cluster=grid.cluster)


def test_the_whole_text(tmp_path: Path) -> None:
    text = described(estimate(small_grid(tmp_path, 8), RunFolder(tmp_path / "run")), ["digits: 5 MB, written already"])
    assert text.splitlines() == [
        "cost of what is left: 6 cells, 2 jobs, in core-hours",
        "  model      pruning          cells     own   alone     disk",
        "  vim_micro  (shared stages)         0.0147             2 kB",
        "  vim_micro  dense                2  0.0185   0.036    52 kB",
        "  vim_micro  magnitude(0.5)       2  0.0191  0.0365  52.2 kB",
        "  vim_micro  magnitude(0.9)       2  0.0191  0.0365  52.2 kB",
        "  all                             6  0.0714   0.109   158 kB",
        "sharing stages, and starts of jobs, saves 0.0376 core-hours (35% of 0.109); own: without what rows share; alone: each cell by itself",
        "wall time: about 2:08 with 2 jobs at a time; the longest chain of jobs takes 2:08",
        "disk: 158 kB of weights, masks and records stay; up to 24 kB of checkpoints meanwhile",
        "data: digits: 5 MB, written already",
        "energy: not known: no counters",
        "sources:",
        "  vim_micro: timed 2026-11-28 20:00 UTC on a CPU: a step 0.5 s (mean of 20; the first 1 s), an evaluated image 10 ms, a start 10 s",
    ]


def test_a_cell_alone_saves_nothing_and_may_pay_for_the_starts_of_its_jobs(tmp_path: Path) -> None:
    grid = small_grid(tmp_path, 1)
    alone = estimate(replace(grid, cells=grid.cells[:1]), RunFolder(tmp_path / "run"))
    assert alone.alone_h < alone.total_h and len(alone.jobs) > 1
    assert "sharing stages saves nothing here; own: " in described(alone)


def test_energy_has_a_column_where_it_is_known(tmp_path: Path) -> None:
    text = described(estimate(small_grid(tmp_path), RunFolder(tmp_path / "run"), step_joules=9000.0))
    assert text.splitlines()[1].endswith("disk  kWh") and "energy: 0.8 kWh of the devices, while they train" in text


def test_a_queue_is_not_in_the_wall_time_and_gpus_are_counted(tmp_path: Path) -> None:
    grid = small_grid(tmp_path)
    gpus = replace(grid, cluster=replace(grid.cluster, kind="slurm", max_parallel=None, gpus_per_node=1))
    text = described(estimate(gpus, RunFolder(tmp_path / "run")))
    assert "in GPU-hours" in text and "with all that can run at a time" in text and "without the time that jobs wait in SLURM's queue" in text


def test_what_was_timed_now_says_so(tmp_path: Path) -> None:
    grid = small_grid(tmp_path)
    costs = estimate(grid, RunFolder(tmp_path / "run"), copies=2, gpu="a GPU")
    now = replace(costs.knowledge, timed_now=frozenset({key_of(grid.cells[0], shape_of(grid.cluster))}))
    assert "vim_micro: timed now, 2 jobs side by side on a GPU:" in described(replace(costs, knowledge=now))


def test_nothing_left_is_no_table(tmp_path: Path) -> None:
    nothing = Estimate(graph=make_graph([]), jobs=[], done=(), knowledge=known(small_grid(tmp_path)), cluster=small_grid(tmp_path).cluster)
    assert described(nothing) == "cost: nothing is left to run"


def test_figures_have_three_digits() -> None:
    assert [number(hours) for hours in (0.01234, 4.567, 123.4, 12345.6)] == ["0.0123", "4.57", "123", "12,346"]
    assert [seconds(value) for value in (0.2713, 12.3)] == ["0.27 s", "12 s"] and kwh(None) == "?" and kwh(3.6e6) == "1"
