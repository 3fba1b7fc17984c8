"""Jobs that time models: on this machine for real, on SLURM with a SLURM that the tests make up."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cost import timing
from harness.cost.timing import LEFT_S, TimingError, kept_path, kept_times, scratch, timed, wait
from harness.cost.work import WorkKey, key_of, shape_of
from harness.grid.read import Grid
from harness.submit.data_first import data_sets, prepare_here
from jobs.experiment.ids import JobId
from jobs.experiment.specs import ClusterSpec, ContainerSpec, DataSpec
from jobs.experiment.step_times import write_times
from jobs.worker.timing import TimingJob
from tests.support.fake_slurm import FakeSlurm
from tests.support.jobs import small_grid
from tests.support.times import TIMES, keep_times

TINY = DataSpec(source="synthetic", samples=40, classes=2, loader="torch")


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Six cells of the smallest network, with its data."""
    grid = small_grid(tmp_path)
    model = replace(grid.cells[0].model, options={"depth": 1, "dim": 8})
    recipe = replace(grid.cells[0].recipe, batch_size=8)
    cells = tuple(replace(cell, model=model, recipe=recipe, data=TINY) for cell in grid.cells)
    cluster = ClusterSpec(kind="debug", profile_s=0.001, profile_batch=2, cache=str(tmp_path / "cache"))
    return replace(grid, cells=cells, cluster=cluster)


def wanted(grid: Grid) -> tuple[WorkKey, list[tuple[object, ClusterSpec]]]:
    return key_of(grid.cells[0], shape_of(grid.cluster)), [(grid.cells[0], grid.cluster)]


def test_times_are_kept_by_machine_or_profile(grid: Grid, tmp_path: Path) -> None:
    key, _ = wanted(grid)
    keep_times(grid, tmp_path / "runs")
    assert kept_times(tmp_path / "runs", {key: grid.cluster})[key].step_s == TIMES.step_s
    paths = {
        kept_path(tmp_path, key, cluster)
        for cluster in (
            grid.cluster,
            ClusterSpec(kind="slurm"),
            ClusterSpec(kind="slurm", slurm={"partition": "a"}),
            ClusterSpec(kind="slurm", nodes=2),
            ClusterSpec(kind="slurm", gpus_per_node=1),
        )
    }
    assert len(paths) == 5 and kept_times(tmp_path / "empty", {key: grid.cluster}) == {}


def test_a_model_is_timed_for_real_and_nothing_else_is_left(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.worker.timing.SECONDS", 0.0)
    assert prepare_here(grid.cluster, data_sets(grid.cells), workers=1, quiet=True)
    key, works = wanted(grid)
    times = timed(tmp_path / "runs", works, (), name="t", side_by_side=3)[key]  # type: ignore[arg-type]
    assert times.steps_per_epoch == 4 and times.val_images == 4 and times.test_images == 10 and times.ranks == times.threads == 1
    assert min(times.step_s, times.first_step_s, times.eval_image_s, times.export_s, times.measure_s, times.start_s, times.prepare_s) > 0
    assert times.copies == 1, "a debug job runs in this process"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".times"] and kept_times(tmp_path / "runs", {key: grid.cluster}) == {key: times}
    assert "timing a few real steps of 1 model on this machine" in capsys.readouterr().err


class EndedJob:
    """A process that has failed."""

    job_id = "4711"

    def done(self) -> bool:
        return True

    def exception(self) -> Exception:
        return RuntimeError("in short")


def test_a_job_that_fails_ends_the_estimate_with_the_end_of_its_log_and_all_copies_end(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[TimingJob] = []
    stopped: list[EndedJob] = []

    def submit(cluster: ClusterSpec, folder: Path, function: object, job: TimingJob, *, name: str, slot: int) -> EndedJob:
        (folder / "4711_0_log.out").write_text("timing vim_micro\n\nDataError: the data is not ready\n")
        jobs.append(job)
        return EndedJob()

    monkeypatch.setattr(timing, "submit", submit)
    monkeypatch.setattr(timing, "stop", stopped.append)
    local = replace(grid, cluster=replace(grid.cluster, kind="local"))
    with pytest.raises(TimingError, match="could not be timed:\n.*\n.*DataError: the data is not ready"):
        timed(tmp_path / "runs", [(local.cells[0], local.cluster)], (), name="t", side_by_side=2)
    assert len(stopped) == 2 and list((tmp_path / "runs").glob(".timing-*")) == []
    assert jobs[0].copies == 2 and jobs[0].run != jobs[1].run and jobs[0].models[0].file != jobs[1].models[0].file


@pytest.fixture
def on_slurm(grid: Grid, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Grid:
    """The same grid on a SLURM that takes job 17 and has ended it."""
    monkeypatch.setattr(timing, "QUEUE_POLL_S", 0.0)
    monkeypatch.setattr(timing, "SEEN_S", 0.0)
    slurm.says("sbatch", "Submitted batch job 17")
    slurm.queue(j17="COMPLETED")
    return replace(grid, cluster=ClusterSpec(kind="slurm", timeout_min=600, slurm={"partition": "p"}))


def test_on_slurm_one_short_job_on_the_profile_times_all_models(on_slurm: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(on_slurm.cells[0], recipe=replace(on_slurm.cells[0].recipe, batch_size=4))
    works = [(cell, on_slurm.cluster) for cell in (on_slurm.cells[0], other)]
    scripts: list[str] = []

    def ended(number: JobId) -> str:
        (script,) = (tmp_path / "runs").glob(".timing-*/jobs/1/submission.sh")
        scripts.append(script.read_text())
        for cell, cluster in works:
            write_times(kept_path(tmp_path / "runs", key_of(cell, shape_of(cluster)), cluster), TIMES)
        return "COMPLETED"

    monkeypatch.setattr(timing, "wait", ended)
    assert len(timed(tmp_path / "runs", works, (), name="t", side_by_side=1)) == 2
    (script,) = scripts
    assert "#SBATCH --partition=p" in script and "#SBATCH --time=21" in script and "#SBATCH --job-name=t-timing" in script


def test_in_a_container_the_short_job_sees_the_folder_of_times(on_slurm: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = ContainerSpec(image="vssm", runtime="pyxis")
    cluster = replace(on_slurm.cluster, container=container, cache=str(tmp_path / "cache"))
    scripts: list[str] = []

    def ended(number: JobId) -> str:
        (script,) = (tmp_path / "runs").glob(".timing-*/jobs/1/submission.sh")
        scripts.append(script.read_text())
        write_times(kept_path(tmp_path / "runs", key_of(on_slurm.cells[0], shape_of(cluster)), cluster), TIMES)
        return "COMPLETED"

    monkeypatch.setattr(timing, "wait", ended)
    timed(tmp_path / "runs", [(on_slurm.cells[0], cluster)], (), name="t", side_by_side=1)
    assert f"{tmp_path}/runs:{tmp_path}/runs" in scripts[0] and "--container-image=vssm" in scripts[0]


def test_a_job_without_times_is_an_error_with_the_end_of_its_log(on_slurm: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(number: JobId) -> str:
        (folder,) = (tmp_path / "runs").glob(".timing-*/jobs/1")
        (folder / "17_0_log.out").write_text("timing vim_micro\ntorch.OutOfMemoryError: no room\n")
        return "FAILED"

    monkeypatch.setattr(timing, "wait", ended)
    with pytest.raises(TimingError, match=r"SLURM job 17 \(FAILED\) left no times of vim_micro:\n.*\n.*OutOfMemoryError: no room"):
        timed(tmp_path / "runs", [(on_slurm.cells[0], on_slurm.cluster)], (), name="t", side_by_side=1)


def test_whoever_stops_waiting_ends_the_job(on_slurm: Grid, slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(number: JobId) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "wait", stopped)
    with pytest.raises(KeyboardInterrupt):
        timed(tmp_path / "runs", [(on_slurm.cells[0], on_slurm.cluster)], (), name="t", side_by_side=1)
    assert slurm.calls("scancel") == ["17"] and list((tmp_path / "runs").glob(".timing-*")) == []


def test_waiting_says_why_and_when_slurm_expects_the_start(
    on_slurm: Grid, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = iter(["RUNNING", "RUNNING", "COMPLETED"])
    slurm.queue(j17="PENDING:Priority@2100-02-01T21:30:00")
    monkeypatch.setattr("harness.cost.timing.time.sleep", lambda seconds: slurm.queue(j17=next(states)))
    assert wait(JobId(17)) == "COMPLETED"
    assert capsys.readouterr().err.splitlines() == [
        "SLURM job 17: PENDING (Priority, expected to start at Mon 1 Feb 21:30)",
        "SLURM job 17: RUNNING, 1:05",
    ]


def test_a_folder_is_removed_after_its_use_and_those_of_killed_commands_after_a_day(tmp_path: Path) -> None:
    for name, age_s in ((".timing-old", 2 * LEFT_S), (".timing-new", LEFT_S / 2), ("run", 2 * LEFT_S)):
        (tmp_path / name / "stages").mkdir(parents=True)
        os.utime(tmp_path / name, times=(time.time() - age_s,) * 2)
    with scratch(tmp_path) as run:
        (run.path / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".timing-new", "run"]
