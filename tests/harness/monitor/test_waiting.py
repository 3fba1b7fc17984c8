"""What a status says of the jobs that wait."""

from datetime import datetime, timedelta

from harness.monitor.status_view import notes
from harness.monitor.survey import survey
from harness.monitor.waiting import moment, waiting_note
from jobs.cluster.slurm_jobs import JobState
from jobs.experiment.ids import JobId
from tests.support.fake_slurm import FakeSlurm
from tests.support.runs import FakeRun

NOW = datetime(2026, 11, 28, 20, 0)


def waiting(number: int, reason: str = "Priority", start: datetime | None = None, state: str = "PENDING") -> JobState:
    return JobState(job=JobId(number), state=state, reason=reason, expected_start=start)


def test_no_line_if_no_job_waits() -> None:
    others = [waiting(1, state="RUNNING"), waiting(2, state="COMPLETED"), waiting(3, "JobHeldUser"), waiting(4, "DependencyNeverSatisfied")]
    assert waiting_note([], NOW) == [] and waiting_note(others, NOW) == []


def test_the_first_and_the_last_expected_start_and_how_many_have_none() -> None:
    jobs = [
        waiting(1, start=NOW + timedelta(hours=30)),
        waiting(2, start=NOW + timedelta(minutes=90)),
        waiting(3, "Dependency"),
        waiting(4, "Dependency"),
    ]
    assert waiting_note(jobs, NOW) == [
        "4 jobs wait in SLURM's queue (Priority 2, Dependency 2); "
        "expected starts from 21:30 (in 1:30:00) to Mon 30 Nov 02:00 (in 30:00:00), 2 not planned yet"
    ]


def test_one_job_and_jobs_without_a_plan() -> None:
    assert waiting_note([waiting(1, start=NOW)], NOW) == ["1 job waits in SLURM's queue (Priority 1); expected start now"]
    assert waiting_note([waiting(1, "")], NOW) == ["1 job waits in SLURM's queue (no reason given 1); it expects no start yet"]


def test_a_time_that_has_passed_is_now() -> None:
    assert moment(NOW - timedelta(seconds=1), NOW) == "now" and moment(NOW + timedelta(seconds=59), NOW) == "20:00 (in 59 s)"


def test_status_shows_what_squeue_says(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17": [fake.trunks[0]], "18": [fake.trunks[1]]})
    slurm.queue(j17="PENDING:Priority@2026-11-28T21:30:00", j18="PENDING:Resources")
    line = next(line for line in notes(survey(fake.run)) if "SLURM's queue" in line)
    assert line.startswith("2 jobs wait in SLURM's queue (Priority 1, Resources 1); expected start ") and line.endswith(", 1 not planned yet")
    assert len(slurm.calls("squeue")) == 1
