"""What a watching status asks for again."""

import os
from pathlib import Path

import pytest

from harness.monitor.memory import ASK_EVERY_S, Memory
from harness.monitor.run_status import Observer
from jobs.cluster.slurm import SchedulerError
from jobs.experiment.ids import JobId
from tests.support.fake_slurm import SILENT, FakeSlurm
from tests.support.runs import FakeRun


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def states(memory: Memory, *jobs: str) -> list[str]:
    """The states of jobs."""
    answer = memory.queue_state([JobId.parse(job) for job in jobs])
    return [answer[JobId.parse(job)].state for job in jobs]


def test_slurm_is_asked_once_a_period_and_at_once_about_new_jobs(slurm: FakeSlurm) -> None:
    clock = Clock()
    memory = Memory(clock=clock)
    slurm.queue(j17_0="RUNNING", j17_1="PENDING:Priority", j18="PENDING:Dependency")
    for clock.now in range(0, int(ASK_EVERY_S), 2):
        assert states(memory, "17_0", "17_1") == ["RUNNING", "PENDING"]
    assert len(slurm.calls("squeue")) == 1
    assert states(memory, "17_0", "18") == ["RUNNING", "PENDING"] and len(slurm.calls("squeue")) == 2
    clock.now += ASK_EVERY_S
    assert states(memory, "17_0", "18") == ["RUNNING", "PENDING"] and len(slurm.calls("squeue")) == 3
    assert not slurm.calls("sacct")


def test_slurm_is_not_asked_when_no_job_is_left_nor_about_jobs_that_ended_long_ago(slurm: FakeSlurm) -> None:
    clock = Clock()
    memory = Memory(clock=clock)
    assert states(memory) == [] and slurm.calls("squeue") == []
    slurm.queue(j17="TIMEOUT")
    for answers, clock.now in enumerate((0.0, ASK_EVERY_S), 1):
        assert states(memory, "17") == ["TIMEOUT"] and len(slurm.calls("squeue")) == answers
    clock.now = 10 * ASK_EVERY_S
    assert states(memory, "17") == ["TIMEOUT"] and len(slurm.calls("squeue")) == 2


def test_a_job_that_slurm_starts_again_is_seen(slurm: FakeSlurm) -> None:
    clock = Clock()
    memory = Memory(clock=clock)
    for state in ("RUNNING", "NODE_FAIL", "PENDING"):
        slurm.queue(j17=state)
        assert states(memory, "17") == [state]
        clock.now += ASK_EVERY_S


def test_a_silent_slurm_is_asked_again_when_it_is_due_and_no_sooner(slurm: FakeSlurm) -> None:
    clock = Clock()
    memory = Memory(clock=clock)
    slurm.fails("squeue", SILENT)
    for _ in range(3):
        with pytest.raises(SchedulerError, match="does not answer"):
            states(memory, "17")
    assert len(slurm.calls("squeue")) == 1
    clock.now = ASK_EVERY_S
    slurm.queue(j17="RUNNING")
    assert states(memory, "17") == ["RUNNING"] and len(slurm.calls("squeue")) == 2


def test_a_folder_is_listed_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, listed = Memory(), []
    monkeypatch.setattr("harness.monitor.memory.names_in", lambda folder: listed.append(folder) or os.listdir(folder))
    assert memory.names(f"{tmp_path}/none") == []
    (tmp_path / "a").touch()
    os.utime(tmp_path, (2**31, 2**31))  # later than any moment of this test
    for _ in range(2):
        assert memory.names(str(tmp_path)) == ["a"]
    assert len(listed) == 2, "it has changed a moment ago, and might change again at the same time by the clock of its disk"
    os.utime(tmp_path, (1.0, 1.0))
    for _ in range(3):
        assert memory.names(str(tmp_path)) == ["a"]
    assert len(listed) == 3
    (tmp_path / "b").touch()
    assert sorted(memory.names(str(tmp_path))) == ["a", "b"]


def test_a_watched_run_is_the_same_as_a_run_seen_afresh(fake: FakeRun, slurm: FakeSlurm) -> None:
    first, second = fake.trunks
    watched = Observer(fake.run, Memory(clock=Clock()))
    fake.submit({"17_0": [first], "17_1": [second]})
    slurm.queue(j17_0="RUNNING", j17_1="PENDING:Priority")
    for change in (lambda: fake.beat(first), lambda: fake.finish(first), lambda: fake.record(fake.cells_of(first)[0]), lambda: fake.fail(second)):
        change()
        assert watched.look().surveyed.states == Observer(fake.run).look().surveyed.states
    assert len(slurm.calls("squeue")) == 1 + 3, "the watching one asked once; with the last change no job has work left"
