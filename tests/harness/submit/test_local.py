"""The local queue, with fake processes that do their work when they are looked at."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.submit import local as module
from harness.submit.local import RESTARTS, LocalQueue
from jobs.cluster.claims import claimed
from jobs.experiment.files import write_json
from jobs.experiment.job import JobSpec
from jobs.experiment.records import Failure
from jobs.experiment.run_folder import RunFolder
from jobs.worker.failures import record_failure
from tests.support.jobs import finished, jobs_of, small_grid, tuned_grid


class FakeProcess:
    """A process that has ended at the second look."""

    job_id = "1"

    def __init__(self, work: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work
        self.cancelled = False

    def done(self) -> bool:
        if self.work is None or self.cancelled:
            return True
        work, self.work = self.work, None
        work()
        return False

    def stop(self) -> None:
        self.cancelled = True


class Machine:
    """A fake `submit`: notes what was started. `behave` tells how each stage ends: done, failed or killed."""

    def __init__(self, run: RunFolder, behave: Callable[[str], str] = lambda stage: "done") -> None:
        self.run, self.behave = run, behave
        self.started: list[tuple[str, ...]] = []
        self.processes: list[FakeProcess] = []
        self.side_by_side = 0

    def submit(self, cluster: Any, folder: Path, function: Any, job: JobSpec, *, name: str, slot: int) -> FakeProcess:
        self.started.append(tuple(spec.id for spec in job.stages))
        self.processes.append(FakeProcess(lambda: self.work(job)))
        self.side_by_side = max(self.side_by_side, sum(process.work is not None for process in self.processes))
        return self.processes[-1]

    def work(self, job: JobSpec) -> None:
        """Runs the stages of a job in turn."""
        for spec in job.stages:
            end = self.behave(spec.id)
            if end == "killed":
                return
            if end == "failed":
                failure = Failure(kind="ValueError", message="no", stage=spec.id)
                self.run.write_failure(spec.id, failure)
                record_failure(self.run, failure, job, 1)
                continue
            (self.run.stage_dir(spec.id) / "export").mkdir(parents=True, exist_ok=True)
            for planned in job.cells:
                if planned.stages[-1] == spec.id:
                    self.run.write_record(finished(job, planned))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.0)


def drained(tmp_path: Path, machine_of: Callable[[RunFolder], Machine], stages_per_job: int = 1) -> tuple[RunFolder, Machine, Any]:
    """The run folder, the machine and the cells after a queue has ended."""
    run = RunFolder(tmp_path / "run")
    grid = small_grid(tmp_path, stages_per_job)
    jobs, cells = jobs_of(grid, run)
    machine = machine_of(run)
    LocalQueue(run, grid.cluster, LocalQueue.of(run, jobs, grid.cluster).waiting, submit=machine.submit).drain(lambda queue: None)
    return run, machine, cells


@pytest.mark.parametrize("stages_per_job", [1, 2, 4, 8])
def test_every_stage_runs_once_parents_first_two_at_a_time(tmp_path: Path, stages_per_job: int) -> None:
    run, machine, cells = drained(tmp_path, Machine, stages_per_job)
    sequence = [stage for stages in machine.started for stage in stages]
    assert sorted(sequence) == sorted({stage for planned in cells for stage in planned.stages})
    assert all(sequence.index(planned.stages[0]) < sequence.index(planned.stages[1]) for planned in cells)
    assert all(run.record(planned.cell.id) for planned in cells)
    assert machine.side_by_side <= 2


def test_a_killed_job_starts_again_where_it_stopped(tmp_path: Path) -> None:
    deaths: list[str] = []

    def once(stage: str) -> str:
        if not deaths:
            deaths.append(stage)
            return "killed"
        return "done"

    run, machine, cells = drained(tmp_path, lambda run: Machine(run, once), stages_per_job=4)
    assert all((record := run.record(planned.cell.id)) and record.status == "done" for planned in cells)
    assert len(machine.started) == 3


def test_a_stage_that_always_dies_fails_and_takes_its_cells_alone(tmp_path: Path) -> None:
    first = jobs_of(small_grid(tmp_path), RunFolder(tmp_path / "run"))[0][0].stages[0].id
    run, machine, cells = drained(tmp_path, lambda run: Machine(run, lambda stage: "killed" if stage == first else "done"))
    failure = run.failure(first)
    assert failure is not None and failure.kind == "killed" and "3 times" in failure.message
    assert machine.started.count((first,)) == RESTARTS + 1
    assert {record.status for planned in cells if first in planned.stages and (record := run.record(planned.cell.id))} == {"failed"}
    assert {record.status for planned in cells if first not in planned.stages and (record := run.record(planned.cell.id))} == {"done"}


def test_children_of_a_failed_stage_are_never_started(tmp_path: Path) -> None:
    first = jobs_of(small_grid(tmp_path), RunFolder(tmp_path / "run"))[0][0].stages[0].id
    run, machine, cells = drained(tmp_path, lambda run: Machine(run, lambda stage: "failed" if stage == first else "done"))
    children = {planned.stages[1] for planned in cells if planned.stages[0] == first}
    assert not children & {stage for stages in machine.started for stage in stages}


def test_a_stage_that_another_launch_works_on_is_left_to_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    grid = small_grid(tmp_path)
    jobs, cells = jobs_of(grid, run)
    machine = Machine(run)
    queue = LocalQueue(run, grid.cluster, LocalQueue.of(run, jobs, grid.cluster).waiting, submit=machine.submit)
    with claimed(run.path / "claims" / jobs[0].stages[0].id):
        queue.start()
    assert jobs[0].stages[0].id not in {stage for stages in machine.started for stage in stages}
    queue.drain(lambda queue: None)
    assert all(run.record(planned.cell.id) for planned in cells)


def test_an_interrupt_cancels_the_running_jobs_and_goes_on_up(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    grid = small_grid(tmp_path)
    machine = Machine(run)
    queue = LocalQueue(
        run, grid.cluster, LocalQueue.of(run, jobs_of(grid, run)[0], grid.cluster).waiting, submit=machine.submit, stop=FakeProcess.stop
    )

    def interrupt(queue: LocalQueue) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        queue.drain(interrupt)
    assert machine.processes and all(process.cancelled for process in machine.processes)


class CrippledProcess(FakeProcess):
    """A process that never ends by itself."""

    def done(self) -> bool:
        return self.cancelled


def test_a_job_that_lost_a_rank_is_ended_and_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RANK_LOST_S", -1.0)  # the second look in a row is late enough
    run = RunFolder(tmp_path / "run")
    grid = small_grid(tmp_path)
    machine = Machine(run)
    crippled: list[CrippledProcess] = []

    def submit(*arguments: Any, **options: Any) -> FakeProcess:
        if crippled:
            return machine.submit(*arguments, **options)
        crippled.append(CrippledProcess(lambda: None))
        return crippled[0]

    cluster = replace(grid.cluster, tasks_per_node=2, max_parallel=1)
    alive = iter([2, 1, 1, 9])
    queue = LocalQueue(
        run,
        cluster,
        LocalQueue.of(run, jobs_of(grid, run)[0], cluster).waiting,
        submit=submit,
        stop=FakeProcess.stop,
        live_ranks=lambda process: next(alive) if process is crippled[0] else 2,  # type: ignore[comparison-overlap]
    )
    queue.drain(lambda queue: None)
    assert crippled[0].cancelled and next(alive) == 9, "the first look at a lack ends nothing, however long ago the look before it was"
    assert all((record := run.record(planned.cell.id)) and record.status == "done" for planned in jobs_of(grid, RunFolder(tmp_path / "empty"))[1])


def test_a_job_that_died_of_a_full_disk_stops_the_queue_and_fails_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    grid = small_grid(tmp_path)
    machine = Machine(run, lambda stage: "killed")
    queue = LocalQueue(
        run, grid.cluster, LocalQueue.of(run, jobs_of(grid, run)[0], grid.cluster).waiting, submit=machine.submit, stop=FakeProcess.stop
    )

    def fill_disk(queue: LocalQueue) -> None:
        for queued in queue.running.values():
            assert queued.log is not None
            queued.log.write_text("OSError: [Errno 28] No space left on device\n")

    with pytest.raises(OSError, match="No space left"):
        queue.drain(fill_disk)
    assert not list(run.path.glob("stages/*/failure.json"))


def test_a_job_that_ran_out_of_memory_and_left_a_smaller_batch_is_no_death(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    sizes = iter([32, 16, 8, 4])  # more often than a stage may die

    def behave(stage: str) -> str:
        size = next(sizes, None)
        if size is None:
            return "done"
        write_json(run.stage_dir(stage) / "micro_batch.json", {"micro_batch_size": size, "because": "no memory"})
        return "killed"

    grid = small_grid(tmp_path)
    jobs, cells = jobs_of(grid, run)
    cluster = replace(grid.cluster, max_parallel=1)
    machine = Machine(run, behave)
    LocalQueue(run, cluster, LocalQueue.of(run, jobs, cluster).waiting, submit=machine.submit).drain(lambda queue: None)
    assert all((record := run.record(planned.cell.id)) and record.status == "done" for planned in cells)
    assert machine.started[:5] == [machine.started[0]] * 5


def test_a_cell_that_is_cancelled_is_run_no_more_and_its_trunk_is_for_the_others(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    grid = small_grid(tmp_path)
    jobs, cells = jobs_of(grid, run)
    (run.path / "cancelled").mkdir(parents=True)
    (run.path / "cancelled" / cells[0].cell.id).touch()
    machine = Machine(run)
    LocalQueue(run, grid.cluster, LocalQueue.of(run, jobs, grid.cluster).waiting, submit=machine.submit).drain(lambda queue: None)
    started = {stage for stages in machine.started for stage in stages}
    assert cells[0].stages[0] in started and cells[0].stages[1] not in started
    assert run.record(cells[0].cell.id) is None and all(run.record(planned.cell.id) for planned in cells[1:])


def test_a_job_that_cannot_load_its_plug_in_is_not_tried_again_and_says_so(tmp_path: Path) -> None:
    class Refusing(Machine):
        def submit(self, cluster: Any, folder: Path, *given: Any, **options: Any) -> FakeProcess:
            log = "Traceback:\n  File x\nmodels.plugins.content.PluginError: net.py is not the plug-in that was launched\n"
            (folder / "1_0_log.out").write_text(log)
            return super().submit(cluster, folder, *given, **options)

    run, machine, cells = drained(tmp_path, lambda run: Refusing(run, lambda stage: "killed"))
    failures = [failure for path in (run.path / "stages").iterdir() if (failure := run.failure(path.name))]
    assert {(failure.kind, failure.message) for failure in failures} == {("PluginError", "net.py is not the plug-in that was launched")}
    assert len(machine.started) == len(set(machine.started)), "each stage once"


@pytest.mark.parametrize("stages_per_job", [1, 2, 8])
@pytest.mark.parametrize("tune", ["finetune_lr: [1e-4, 1e-3, 2e-3]", "lr: [1e-4, 1e-3, 2e-3]"])
def test_a_choice_runs_once_when_all_trials_have_ended_whether_well_or_not(tmp_path: Path, tune: str, stages_per_job: int) -> None:
    run = RunFolder(tmp_path / "run")
    grid = tuned_grid(tmp_path, tune, stages_per_job)
    jobs, (planned,) = jobs_of(grid, run)
    first, second, third = (trial.stages for trial in planned.trials)
    ends = {first[-1]: "failed", next(stage for stage in second if stage not in first): "killed"}
    seen: list[tuple[bool, ...]] = []

    def behave(stage: str) -> str:
        if stage == planned.stages[-1]:
            seen.append(tuple(run.given_up(trial.stages[-1]) or run.done(trial.stages[-1]) for trial in planned.trials[::2]))
        return ends.get(stage, "done")  # type: ignore[call-overload, no-any-return]

    machine = Machine(run, behave)
    queue = LocalQueue.of(run, jobs, grid.cluster)
    queue.submit = machine.submit  # type: ignore[assignment]
    queue.drain(lambda queue: None)
    record, killed = run.record(planned.cell.id), run.failure(next(stage for stage in second if stage not in first))
    assert seen == [(True, True)] and record is not None and record.status == "done"
    assert killed is not None and killed.kind == "killed" and run.done(third[-1])


def test_a_launch_after_a_failed_trial_runs_the_other_trials_and_the_choice_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    _, (planned,) = jobs_of(tuned_grid(tmp_path), run)
    trunk, failed = planned.trials[0].stages
    (run.stage_dir(trunk) / "export").mkdir(parents=True)
    run.write_failure(failed, Failure(kind="diverged", message="no", stage=failed))
    left = [spec.id for job in jobs_of(tuned_grid(tmp_path), run)[0] for spec in job.stages]
    assert left == [stage for stage in planned.stages if stage not in (trunk, failed)]
