"""The cells that a run keeps to."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cost.budget import BudgetError
from harness.cost.chosen import KeptChoice, begun_cells, decide, forget_choice, is_for, kept_choice, kept_to, prices_of, write_choice
from harness.cost.estimate import Estimate
from harness.cost.gather import works
from harness.cost.knowledge import Knowledge
from harness.grid.read import Grid, read_grid
from harness.plan.jobs import done_stages, make_jobs, planned_cells
from harness.plan.stages import make_graph
from jobs.experiment.run_folder import RunFolder
from tests.support.jobs import small_grid, tuned_grid
from tests.support.runs import FakeRun
from tests.support.times import TIMES, known

# of small_grid, in seconds: a trunk 23.875, a dense fine-tuning as much, a pruned one 24.875, a measurement 7, a start 10
DENSE_H, MAGNITUDE_H = 2 * (2 * 33.875 + 7) / 3600, 2 * (34.875 + 7) / 3600


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return small_grid(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "small")


def estimate(grid: Grid, run: RunFolder) -> Estimate:
    graph = make_graph(grid.cells)
    planned = [cell for cell in planned_cells(grid, graph) if not run.record_path(cell.cell.id).exists()]
    return Estimate(graph=graph, jobs=make_jobs(grid, graph, run, planned), done=done_stages(graph, run), knowledge=known(grid), cluster=grid.cluster)


def test_a_choice_is_kept_and_forgotten(run: RunFolder, grid: Grid) -> None:
    assert kept_choice(run) is None
    decision = decide(grid, make_graph(grid.cells), run, estimate(grid, run), "90m")
    write_choice(run, decision.choice)
    assert kept_choice(run) == decision.choice
    forget_choice(run)
    forget_choice(run)
    assert kept_choice(run) is None


def test_a_torn_choice_is_an_error_since_all_cells_might_run_without_it(run: RunFolder) -> None:
    run.path.mkdir(parents=True)
    (run.path / "budget.json").write_text('{"budget": "2')
    with pytest.raises(BudgetError, match=r"budget\.json cannot be read"):
        kept_choice(run)


def test_what_fits_is_chosen_whole_row_by_whole_row(grid: Grid, run: RunFolder) -> None:
    decision = decide(grid, make_graph(grid.cells), run, estimate(grid, run), f"{60 * (DENSE_H + MAGNITUDE_H) + 0.001:.4f}m")
    assert [(cell.pruning, cell.seed) for cell in decision.grid.cells] == [
        ("dense", 0), ("dense", 1), ("magnitude(0.5)", 0), ("magnitude(0.5)", 1)
    ]  # fmt: skip
    assert decision.choice.estimated_h == pytest.approx(DENSE_H + MAGNITUDE_H) and decision.choice.unit == "core"
    assert decision.text.splitlines() == [
        f"budget of {decision.choice.budget}: 4 of 6 cells (2 of 3 rows) for about 0.0648 core-hours",
        "  chosen    vim_micro: dense, magnitude(0.5)",
        "  left out  vim_micro: magnitude(0.9)",
    ]


def test_the_whole_grid_costs_what_its_estimate_says(grid: Grid, run: RunFolder) -> None:
    whole = estimate(grid, run)
    decision = decide(grid, make_graph(grid.cells), run, whole, "100h")
    assert decision.choice.estimated_h == pytest.approx(whole.total_h) and not decision.choice.left_out


def test_too_small_a_budget_says_what_is_needed(grid: Grid, run: RunFolder) -> None:
    with pytest.raises(BudgetError, match=r"dense and random rows of all models need 0\.0415 hours"):
        decide(grid, make_graph(grid.cells), run, estimate(grid, run), "1m")


def test_what_is_done_counts_as_what_it_took_and_stays(fake: FakeRun) -> None:
    for planned in (path for path in fake.paths if path.cell.pruning == "magnitude(0.9)"):
        for stage in planned.stages:
            fake.finish(stage, train_s=7200.0)
        fake.record(planned)
    graph, costs = make_graph(fake.grid.cells), estimate(fake.grid, fake.run)
    with pytest.raises(BudgetError, match=r"need 8\.0\d hours"):
        decide(fake.grid, graph, fake.run, costs, "7h")
    decision = decide(fake.grid, graph, fake.run, costs, f"{60 * 8.04:.2f}m")
    assert {cell.pruning for cell in decision.grid.cells} == {"dense", "magnitude(0.9)"}, "4 stages of 2 hours each, and the dense control"


def choice(grid: Grid, count: int, budget: str = "2h") -> KeptChoice:
    ids = [cell.id for cell in grid.cells]
    return KeptChoice(budget=budget, unit="core", estimated_h=1.0, chosen=ids[:count], left_out=ids[count:], made="2026-11-28T20:00:00+00:00")


def test_a_choice_is_for_the_same_budget_and_a_grid_without_new_cells(grid: Grid) -> None:
    kept = choice(grid, 2)
    assert is_for(kept, grid, None) and is_for(kept, grid, "2h") and is_for(kept, grid, "120m") and not is_for(kept, grid, "3h")
    grown = kept.model_copy(update={"left_out": kept.left_out[1:]})
    assert not is_for(grown, grid, "2h") and is_for(grown, grid, None)


def test_a_later_launch_has_the_same_cells_and_says_so(grid: Grid) -> None:
    smaller, sentence = kept_to(grid, choice(grid, 2))
    assert smaller.cells == grid.cells[:2]
    assert sentence == (
        "this run keeps to the 2 of 6 cells chosen for its budget of 2h on 2026-11-28; --budget none takes all cells, another budget chooses again"
    )
    fewer = choice(grid, 2).model_copy(update={"left_out": []})
    assert "; 4 cells of the grid came later: --budget 2h chooses again; " in kept_to(grid, fewer)[1]


def test_a_choice_of_which_the_grid_has_nothing_left_is_an_error(grid: Grid) -> None:
    with pytest.raises(BudgetError, match="none of the 2 cells chosen for the budget of 2h is in the grid: give --budget again"):
        kept_to(replace(grid, cells=grid.cells[2:]), choice(grid, 2))


def test_a_grid_without_controls_says_that_nothing_can_be_compared(grid: Grid, run: RunFolder) -> None:
    pruned = replace(grid, cells=tuple(cell for cell in grid.cells if cell.method.name != "dense"))
    assert "no dense and no random row" in decide(pruned, make_graph(pruned.cells), run, estimate(pruned, run), "1h").text


def test_a_smaller_budget_drops_what_is_not_begun_and_a_larger_one_drops_nothing(fake: FakeRun) -> None:
    graph, costs = make_graph(fake.grid.cells), estimate(fake.grid, fake.run)
    write_choice(fake.run, decide(fake.grid, graph, fake.run, costs, "1h").choice)
    smaller = decide(fake.grid, graph, fake.run, costs, "3m")
    assert {cell.pruning for cell in smaller.grid.cells} == {"dense"} and "4 cells chosen for 1h left; jobs that were submitted" in smaller.text
    pruned = next(path for path in fake.paths if path.cell.pruning == "magnitude(0.9)")
    fake.run.stage_dir(pruned.stages[-1]).mkdir(parents=True)
    with pytest.raises(BudgetError, match="and what is begun need"):
        decide(fake.grid, graph, fake.run, costs, "3m")
    write_choice(fake.run, decide(fake.grid, graph, fake.run, costs, "4m").choice)
    assert {cell.pruning for cell in decide(fake.grid, graph, fake.run, costs, "4.1m").grid.cells} == {"dense", "magnitude(0.9)"}


def test_jobs_with_resources_of_their_own_are_paid_as_the_estimate_says(tmp_path: Path) -> None:
    path, run = tmp_path / "sizes.yaml", RunFolder(tmp_path / "run")
    path.write_text(
        "name: sizes\nrecipe: {epochs: 1, finetune_epochs: 1}\nseeds: [0]\ncluster: {kind: slurm, gpus_per_node: 1}\n"
        "models: [{name: vim_micro, cluster: {gpus_per_node: 4}}]\npruning: [dense, {method: random, sparsity: 0.5, cluster: {gpus_per_node: 2}}]\n"
    )
    grid = read_grid(path)
    graph = make_graph(grid.cells)
    jobs = make_jobs(grid, graph, run, planned_cells(grid, graph))
    whole = Estimate(graph=graph, jobs=jobs, done=(), knowledge=Knowledge(times=dict.fromkeys(works(jobs), TIMES)), cluster=grid.cluster)
    assert decide(grid, graph, run, whole, "100h").choice.estimated_h == pytest.approx(whole.total_h)
    trunk = graph.paths[grid.cells[0].id][0]
    FakeRun(run, grid, graph, ()).finish(trunk, train_s=3600.0)
    left = Estimate(graph=graph, jobs=[], done={trunk}, knowledge=Knowledge(), cluster=grid.cluster)
    assert prices_of(grid, graph, run, left).stage_h[trunk] == pytest.approx(4.0)


def test_a_tuned_cell_has_begun_when_a_trial_is_at_its_last_stage(tmp_path: Path) -> None:
    grid, run = tuned_grid(tmp_path), RunFolder(tmp_path / "run")
    graph = make_graph(grid.cells)
    (cell,) = grid.cells
    first, second, *_ = graph.trials[cell.id]
    run.stage_dir(first.stages[0]).mkdir(parents=True)
    assert begun_cells(grid, graph, run) == frozenset()
    run.stage_dir(second.stages[-1]).mkdir()
    assert begun_cells(grid, graph, run) == {cell.id}


def test_a_first_budget_says_that_jobs_of_what_it_leaves_out_go_on(fake: FakeRun) -> None:
    graph, costs = make_graph(fake.grid.cells), estimate(fake.grid, fake.run)
    assert "submitted" not in decide(fake.grid, graph, fake.run, costs, "3m").text, "the jobs of a launch here have ended with it"
    queued = replace(fake.grid, cluster=replace(fake.grid.cluster, kind="slurm"))
    assert "4 cells of a previous launch left out; jobs that were submitted" in decide(queued, graph, fake.run, costs, "3m").text
