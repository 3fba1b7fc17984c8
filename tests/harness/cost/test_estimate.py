"""The cost of a plan, against sums over each cell's own plan."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from harness.cost.estimate import SHARED, Estimate, hours, slots_of
from harness.cost.gather import works
from harness.cost.knowledge import RECORD_BYTES, Knowledge
from harness.cost.work import shape_of
from harness.grid.read import Grid, read_grid
from harness.plan.jobs import make_jobs, planned_cells
from harness.plan.stages import make_graph
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec
from tests.support.jobs import small_grid
from tests.support.times import TIMES, known

TRAIN_S = 2.0 + 0.5 + 20.0 + 1.0 + 0.25 + 0.125
PRUNED_S, MEASURED_S, START_S = TRAIN_S + 1.0, 7.0, 10.0


def estimate(grid: Grid, run: RunFolder, done: frozenset[str] = frozenset()) -> Estimate:
    """The estimate of all cells of a grid under the same times for all models."""
    graph = make_graph(grid.cells)
    jobs = make_jobs(grid, graph, run, planned_cells(grid, graph))
    return Estimate(graph=graph, jobs=jobs, done=done, knowledge=known(grid), cluster=grid.cluster)  # type: ignore[arg-type]


@pytest.mark.parametrize("stages_per_job", [1, 3, 8])
def test_the_sum_is_that_of_all_stages_measurements_and_starts(tmp_path: Path, stages_per_job: int) -> None:
    costs = estimate(small_grid(tmp_path, stages_per_job), RunFolder(tmp_path / "run"))
    seconds = 2 * TRAIN_S + 2 * TRAIN_S + 4 * PRUNED_S + 6 * MEASURED_S + len(costs.jobs) * START_S
    assert costs.total_h == pytest.approx(seconds / 3600) and sum(costs.job_s) == pytest.approx(seconds)
    assert sum(row.own_h for row in costs.rows) == pytest.approx(costs.total_h)


def test_alone_is_the_estimate_of_a_grid_of_each_cell_alone(tmp_path: Path) -> None:
    grid, run = small_grid(tmp_path, 3), RunFolder(tmp_path / "run")
    together = estimate(grid, run)
    alone = [estimate(replace(grid, cells=(cell,), cluster=replace(grid.cluster, max_parallel=1)), run) for cell in grid.cells]
    assert together.alone_h == pytest.approx(sum(each.total_h for each in alone)) and together.alone_h > together.total_h


def test_the_rows_tell_what_is_shared(tmp_path: Path) -> None:
    rows = {row.pruning: row for row in estimate(small_grid(tmp_path, 8), RunFolder(tmp_path / "run")).rows}
    assert list(rows) == [SHARED, "dense", "magnitude(0.5)", "magnitude(0.9)"] and [row.cells for row in rows.values()] == [0, 2, 2, 2]
    assert rows["magnitude(0.5)"].own_h == pytest.approx(2 * (PRUNED_S + MEASURED_S + START_S / 4) / 3600)
    assert rows[SHARED].file_bytes == 2 * 1000 and rows["dense"].file_bytes == 2 * (1000 + RECORD_BYTES)
    assert rows["magnitude(0.9)"].file_bytes == 2 * (1100 + RECORD_BYTES)


def test_what_is_done_costs_nothing_but_a_measurement(tmp_path: Path) -> None:
    grid, run = small_grid(tmp_path, 8), RunFolder(tmp_path / "run")
    graph = make_graph(grid.cells)
    for stage in graph.stages:
        run.export_dir(stage).mkdir(parents=True)
        (run.export_dir(stage) / "result.json").write_text('{"steps": 0}')
    costs = estimate(grid, run, frozenset(graph.stages))
    assert not costs.stages and sum(costs.job_s) == pytest.approx(6 * MEASURED_S + len(costs.jobs) * START_S)


def test_more_slots_never_take_longer_and_no_number_beats_the_chain(tmp_path: Path) -> None:
    grid, run = small_grid(tmp_path), RunFolder(tmp_path / "run")
    walls = [estimate(replace(grid, cluster=replace(grid.cluster, max_parallel=slots)), run).wall_s for slots in (1, 2, 4, 8)]
    assert all(before >= after for before, after in pairwise(walls)) and walls[0] == pytest.approx(sum(estimate(grid, run).job_s))
    assert walls[-1] == pytest.approx(estimate(grid, run).longest_s) == pytest.approx(START_S + TRAIN_S + START_S + PRUNED_S + MEASURED_S)


def test_hours_are_those_of_gpus_or_of_cores() -> None:
    cores, gpus = ClusterSpec(tasks_per_node=2, cpus_per_task=4), ClusterSpec(nodes=2, tasks_per_node=4, cpus_per_task=8, gpus_per_node=4)
    assert hours(cores, 3600, of_gpus=False) == 8 and hours(gpus, 3600, of_gpus=True) == 8 and hours(cores, 3600, of_gpus=True) == 0


def test_slurm_runs_all_that_can_run_unless_the_profile_limits_it() -> None:
    assert slots_of(ClusterSpec(kind="slurm")) is None and slots_of(ClusterSpec(kind="slurm", max_parallel=7)) == 7
    assert slots_of(ClusterSpec(kind="debug")) == 1


def test_checkpoints_lie_there_for_the_jobs_at_work(tmp_path: Path) -> None:
    costs = estimate(small_grid(tmp_path), RunFolder(tmp_path / "run"))
    assert costs.checkpoint_bytes == 3 * 2 * TIMES.checkpoint_bytes


def test_entries_with_resources_of_their_own_count_their_own_gpus(tmp_path: Path) -> None:
    path = tmp_path / "sizes.yaml"
    path.write_text(
        "name: sizes\nrecipe: {epochs: 1, finetune_epochs: 1}\npruning: [dense]\nseeds: [0]\ncluster: {kind: slurm, gpus_per_node: 1}\n"
        "models: [vim_micro, {name: vim_micro, depth: 2, cluster: {gpus_per_node: 4}}]\n"
    )
    grid, run = read_grid(path), RunFolder(tmp_path / "run")
    graph = make_graph(grid.cells)
    jobs = make_jobs(grid, graph, run, planned_cells(grid, graph))
    wanted = works(jobs)
    knowledge = Knowledge(times=dict.fromkeys(wanted, TIMES))
    costs = Estimate(graph=graph, jobs=jobs, done=(), knowledge=knowledge, cluster=grid.cluster)
    cell_s = 2 * (START_S + TRAIN_S) + MEASURED_S
    assert {shape_of(cluster).ranks for _, cluster in wanted.values()} == {1, 4} and len(jobs) == 4
    assert costs.of_gpus and costs.total_h == pytest.approx((1 + 4) * cell_s / 3600)
    assert {row.model: row.own_h * 3600 for row in costs.rows} == pytest.approx({"vim_micro": cell_s, "vim_micro(depth=2)": 4 * cell_s})
