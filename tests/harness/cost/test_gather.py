"""What is known of a plan, and where it comes from."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cost import gather
from harness.cost.gather import data_lines, gathered, works, write_data
from harness.cost.knowledge import Knowledge
from harness.cost.timing import TimingError
from harness.cost.work import key_of, shape_of
from harness.grid.read import Grid, read_grid
from harness.plan.jobs import make_jobs, planned_cells
from harness.plan.stages import make_graph
from harness.submit.data_first import data_sets
from jobs.experiment.job import JobSpec
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, DataSpec
from tests.support.images import write_folder
from tests.support.jobs import jobs_of, small_grid
from tests.support.times import TIMES, keep_times


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return small_grid(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "small")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Timing answers at once, and notes how many jobs it runs side by side."""
    calls: list[int] = []

    def timed(runs: Path, wanted: list[tuple[object, ClusterSpec]], plugins: object, *, name: str, side_by_side: int) -> dict[str, object]:
        calls.append(side_by_side)
        return {key_of(cell, shape_of(cluster)): TIMES.model_copy(update={"step_s": 9.0}) for cell, cluster in wanted}  # type: ignore[arg-type]

    monkeypatch.setattr(gather, "timed", timed)
    monkeypatch.setattr(gather, "write_data", lambda cluster, data: None)
    return calls


def jobs(grid: Grid, run: RunFolder) -> list[JobSpec]:
    return jobs_of(grid, run)[0]


def test_all_cells_of_one_model_are_one_work(grid: Grid, run: RunFolder) -> None:
    assert len(works(jobs(grid, run))) == 1


def test_what_no_file_tells_is_timed_beside_as_many_jobs_as_will_run(grid: Grid, run: RunFolder, tmp_path: Path, asked: list[int]) -> None:
    knowledge = gathered(grid, run, tmp_path / "runs", jobs(grid, run), anew=False, can_run=True)
    assert asked == [2] and knowledge.timed_now == frozenset(knowledge.times) and [times.step_s for times in knowledge.times.values()] == [9.0]


def test_kept_times_do_unless_they_are_to_be_new(grid: Grid, run: RunFolder, tmp_path: Path, asked: list[int]) -> None:
    keep_times(grid, tmp_path / "runs")
    knowledge = gathered(grid, run, tmp_path / "runs", jobs(grid, run), anew=False, can_run=True)
    assert not asked and not knowledge.timed_now and [times.step_s for times in knowledge.times.values()] == [TIMES.step_s]
    knowledge = gathered(grid, run, tmp_path / "runs", jobs(grid, run), anew=True, can_run=True)
    assert asked and knowledge.timed_now and [times.step_s for times in knowledge.times.values()] == [9.0]


def test_what_records_tell_is_not_timed(honest: Path, tmp_path: Path, asked: list[int]) -> None:
    grid = read_grid(honest.parents[1] / "grid.yaml")
    graph = make_graph(grid.cells)
    new = RunFolder(tmp_path / "new")
    planned = make_jobs(grid, graph, new, planned_cells(grid, graph))
    knowledge = gathered(grid, new, honest.parent, planned, anew=True, can_run=True)
    assert not asked and not knowledge.timed_now and [known.records for known in knowledge.learned.values()] == [10]
    assert set(knowledge.labels.values()) == {cell.model.label for cell in grid.cells}


def test_a_machine_that_cannot_run_the_jobs_times_nothing(grid: Grid, run: RunFolder, tmp_path: Path, asked: list[int]) -> None:
    with pytest.raises(TimingError, match="no record here tells how long vim_micro takes.*estimate on a login node"):
        gathered(grid, run, tmp_path / "runs", jobs(grid, run), anew=False, can_run=False)
    assert not asked


def test_data_that_takes_long_is_to_be_written_first(tmp_path: Path) -> None:
    write_folder(tmp_path / "images" / "train", count=4)
    write_folder(tmp_path / "images" / "val", count=4)
    data = DataSpec(source="imagefolder", path=str(tmp_path / "images"), img_size=32, loader="torch", name="images")
    cluster = ClusterSpec(cache=str(tmp_path / "cache"))
    with pytest.raises(TimingError, match="images is not written yet: run python -m harness.prepare"):
        write_data(cluster, [data])
    assert data_lines(cluster, [data]) == ["images: not written yet"]


def test_written_data_has_a_size(grid: Grid, tmp_path: Path) -> None:
    cells = [replace(cell, data=DataSpec(source="synthetic", samples=20, classes=2, loader="torch")) for cell in grid.cells]
    cluster = ClusterSpec(cache=str(tmp_path / "cache"))
    write_data(cluster, data_sets(cells))
    (line,) = data_lines(cluster, data_sets(cells))
    assert line.startswith("synthetic: ") and line.endswith("MB, written already")


def test_a_work_for_each_trial_and_none_for_the_choice(tmp_path: Path) -> None:
    path = tmp_path / "tuned.yaml"
    path.write_text("name: t\nmodels: [vim_micro]\npruning: [dense]\nseeds: [0]\ntune: {ema: [0.9, 0.99], lr: [1e-3, 2e-3]}\n")
    grid = read_grid(path)
    graph = make_graph(grid.cells)
    wanted = works(make_jobs(grid, graph, RunFolder(tmp_path / "run"), planned_cells(grid, graph)))
    training = [spec for spec in graph.stages.values() if not spec.trials]
    shape = shape_of(grid.cluster)
    assert len(wanted) == 2 and {key_of(spec, shape) for spec in training} == set(wanted), "how fast the average follows may cost time; lr does not"
    (choice,) = (spec for spec in graph.stages.values() if spec.trials)
    assert Knowledge().stage(choice, shape).seconds == 0.0
