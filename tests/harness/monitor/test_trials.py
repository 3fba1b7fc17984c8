"""What status says of trials."""

from pathlib import Path

from harness.grid.read import read_grid
from harness.monitor.incidents import incidents
from harness.monitor.survey import open_stages, survey
from harness.monitor.training_time import needed
from harness.monitor.trials import trial_notes
from harness.plan.jobs import planned_cells
from harness.plan.snapshot import save_launch
from harness.plan.stages import make_graph
from jobs.experiment.run_folder import RunFolder
from jobs.worker.notify import is_over
from tests.support.runs import FakeRun, elsewhere

GRID = """
name: tuned
models: [vim_micro]
pruning: [dense, {method: magnitude, sparsity: 0.5}]
tune: {TUNE}
seeds: [0]
"""


def tuned(folder: Path, tune: str = "finetune_lr: [1e-4, 1e-3, 2e-3]") -> FakeRun:
    """A launched grid of two tuned cells, of which nothing has run."""
    (folder / "grid.yaml").write_text(GRID.replace("TUNE", tune))
    grid = read_grid(folder / "grid.yaml")
    plan = make_graph(grid.cells)
    run = RunFolder(folder / "runs" / grid.name)
    save_launch(grid, plan, run)
    return FakeRun(run, grid, plan, planned_cells(grid, plan))


def test_trials_are_counted_and_a_failed_one_is_no_failure_of_its_cell(tmp_path: Path) -> None:
    fake = tuned(tmp_path)
    dense = fake.paths[0]
    assert trial_notes(survey(fake.run)) == ["tuning: 0 of 6 trials done"]
    fake.finish(dense.stages[0])
    fake.fail(dense.trials[0].stages[-1], kind="diverged")
    fake.finish(dense.trials[1].stages[-1])
    surveyed = survey(fake.run)
    assert trial_notes(surveyed) == ["tuning: 1 of 6 trials done, 1 failed, which counts as tried"]
    assert set(surveyed.states.values()) == {"open"} and incidents(fake.run, surveyed) == []
    assert open_stages(surveyed.index.cells[dense.cell.id], surveyed.files) == [dense.trials[2].stages[-1], dense.stages[-1]]
    assert dense.trials[0].stages[-1] in surveyed.dropped and dense.trials[0].stages[-1] not in needed(surveyed)


def test_a_run_is_not_over_while_a_cell_with_a_failed_trial_has_others(tmp_path: Path) -> None:
    fake = tuned(tmp_path)
    dense, pruned = fake.paths
    fake.record(dense)
    fake.fail(pruned.trials[0].stages[-1], kind="diverged")
    assert not is_over(fake.run)
    fake.fail(pruned.stages[-1], kind="NoTrialLeft")
    assert is_over(fake.run)


def test_a_stage_says_which_trial_it_is_of(tmp_path: Path) -> None:
    index = survey(tuned(tmp_path, "lr: [1e-3, 2e-3], finetune_lr: [1e-4, 2e-4]").run).index
    titles = [stage.title for stage in index.stages.values()]
    assert "vim_micro  train  lr 0.001  seed 0" in titles and "vim_micro  finetune  lr 0.001, finetune_lr 0.0002  seed 0" in titles
    assert "vim_micro  choose dense  seed 0" in titles and len(titles) == 2 + 4 + 4 + 2


def test_a_cell_runs_while_any_of_its_trials_does(tmp_path: Path) -> None:
    fake = tuned(tmp_path)
    dense = fake.paths[0]
    fake.finish(dense.stages[0])
    last = dense.trials[2].stages[-1]
    fake.submit({elsewhere(): [last]})
    fake.beat(last)
    surveyed = survey(fake.run)
    assert surveyed.states[dense.cell.id] == "running" and surveyed.at_work(dense.cell.id) == [last]


def test_where_the_shared_training_fails_the_cells_are_blocked(tmp_path: Path) -> None:
    fake = tuned(tmp_path)
    fake.fail(fake.paths[0].stages[0])
    assert set(survey(fake.run).states.values()) == {"blocked"}


def test_without_tuning_nothing_is_said(fake: FakeRun) -> None:
    assert trial_notes(survey(fake.run)) == []
