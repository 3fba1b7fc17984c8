"""Which stages are left to run where some are there already."""

from pathlib import Path

from harness.grid.read import Grid, read_grid
from harness.plan.jobs import done_stages, make_jobs, make_packs, planned_cells, to_replay
from harness.plan.stages import StageGraph, make_graph
from jobs.experiment.rewinds import ask_for_replay, refusal, rewind_name
from jobs.experiment.run_folder import RunFolder

TEXT = """
name: g
models: vim_micro
seeds: [0]
recipe: {epochs: 6, finetune_epochs: 2}
pruning: [dense, {method: iterative_magnitude, rounds: 1, rewind_step: 9}]
cluster: {kind: local, max_parallel: 1, stages_per_job: 2}
"""


def launched(folder: Path) -> tuple[Grid, StageGraph, RunFolder, Path]:
    """A grid whose dense training is finished and has kept nothing; the last is that stage's folder."""
    path = folder / "grid.yaml"
    path.write_text(TEXT)
    grid = read_grid(path)
    plan, run = make_graph(grid.cells), RunFolder(folder / "runs")
    trunk = run.stage_dir(plan.paths[grid.cells[0].id][0])
    (trunk / "export").mkdir(parents=True)
    (trunk / "export" / "result.json").write_text('{"steps": 100}')
    return grid, plan, run, trunk


def stages_to_do(grid: Grid, plan: StageGraph, run: RunFolder) -> list[str]:
    return [plan.stages[stage].stage.name for one in make_packs(grid, plan, run, planned_cells(grid, plan)) for stage in one.stages]


def test_a_finished_stage_that_lacks_a_step_is_to_be_done_before_those_that_rewind_to_it(tmp_path):
    grid, plan, run, trunk = launched(tmp_path)
    assert to_replay(plan, run) == [trunk.name] and not done_stages(plan, run)
    first = stages_to_do(grid, plan, run)
    assert first[0] == "train" and sorted(first) == ["finetune", "prune_1", "round_1", "train"]
    ask_for_replay(trunk)
    assert not run.done(trunk.name), "until it is replayed, other jobs wait for it"
    orders = make_jobs(grid, plan, run, planned_cells(grid, plan))
    assert orders[0].stages[0].stage.keep_steps == (9,)


def test_once_the_step_is_kept_or_refused_the_stage_is_done(tmp_path):
    grid, plan, run, trunk = launched(tmp_path)
    for file in (trunk / "export" / rewind_name(9), refusal(trunk / "export", 9)):
        file.touch()
        assert done_stages(plan, run) == {trunk.name} and "train" not in stages_to_do(grid, plan, run)
        file.unlink()
    assert to_replay(plan, run)
