"""One look at SLURM, with and without accounts."""

from datetime import datetime

import pytest

from jobs.cluster.slurm import SchedulerError, SchedulerSilent
from jobs.cluster.slurm_jobs import JobState, queue_state, seconds, spelled_out
from jobs.experiment.ids import JobId
from tests.support.fake_slurm import SILENT, FakeSlurm


def states_of(*jobs: str) -> dict[str, JobState]:
    """The state of each job, by the ids as SLURM writes them."""
    return {str(job): state for job, state in queue_state(map(JobId.parse, jobs)).items()}


def test_without_jobs_slurm_is_not_asked(slurm: FakeSlurm) -> None:
    assert queue_state([]) == {} and not slurm.calls("squeue")


def test_one_squeue_call_answers_for_many_jobs_and_sacct_is_left_alone(slurm: FakeSlurm) -> None:
    slurm.queue(j17_0="RUNNING", j17_1="PENDING:Resources", j18_0="COMPLETED", j99="RUNNING")
    states = states_of("17_0", "17_1", "18_0")
    assert {job: state.state for job, state in states.items()} == {"17_0": "RUNNING", "17_1": "PENDING", "18_0": "COMPLETED"}
    assert states["17_0"].elapsed_s == 65 and states["17_0"].nodes == "node1" and states["17_1"].reason == "Resources"
    assert {job for job, state in states.items() if state.alive} == {"17_0", "17_1"}
    assert len(slurm.calls("squeue")) == 1 and "--jobs=17,18" in slurm.calls("squeue")[0] and not slurm.calls("sacct")


def test_sacct_is_asked_once_about_jobs_that_squeue_has_forgotten(slurm: FakeSlurm) -> None:
    slurm.queue(j17_0="RUNNING")
    slurm.says("sacct", "17_1|OUT_OF_MEMORY|60|node2", "17_[2-3]|CANCELLED by 1000|0|None assigned", "17_4|RUNNING|9|node1")
    states = states_of(*(f"17_{task}" for task in range(6)))
    assert [states[f"17_{task}"].state for task in range(6)] == ["RUNNING", "OUT_OF_MEMORY", "CANCELLED", "CANCELLED", "ENDED", "ENDED"]
    assert states["17_1"].nodes == "node2" and states["17_2"].nodes == "" and len(slurm.calls("sacct")) == 1


def test_without_accounts_a_forgotten_job_has_ended_in_an_unknown_way(slurm: FakeSlurm) -> None:
    slurm.fails("squeue", "slurm_load_jobs error: Invalid job id specified")
    slurm.fails("sacct", "Slurm accounting storage is disabled")
    assert states_of("17")["17"].state == "ENDED"


def test_a_job_that_lost_its_node_and_waits_again_is_not_over(slurm: FakeSlurm) -> None:
    slurm.queue(j17="PENDING:BeginTime")
    slurm.says("sacct", "17|NODE_FAIL|60|node2")
    state = states_of("17")["17"]
    assert state.alive and not state.running


def test_a_job_whose_dependency_can_never_be_met_is_not_alive(slurm: FakeSlurm) -> None:
    slurm.queue(j17="PENDING:DependencyNeverSatisfied")
    assert not states_of("17")["17"].alive


def test_a_silent_controller_gives_no_verdict(slurm: FakeSlurm) -> None:
    slurm.fails("squeue", SILENT)
    with pytest.raises(SchedulerSilent):
        queue_state([JobId(17)], patience_s=0.0, say=lambda text: None)


def test_an_error_of_squeue_gives_no_verdict_either(slurm: FakeSlurm) -> None:
    slurm.fails("squeue", "squeue: fatal: Could not establish a configuration source")
    with pytest.raises(SchedulerError, match="configuration source"):
        states_of("17")


def test_a_job_that_waits_has_the_start_that_slurm_expects(slurm: FakeSlurm) -> None:
    slurm.queue(j17="PENDING:Priority@2026-11-28T21:30:00", j18="PENDING:Dependency", j19="RUNNING@2026-11-28T20:00:00")
    states = states_of("17", "18", "19")
    assert states["17"].expected_start == datetime(2026, 11, 28, 21, 30) and states["17"].reason == "Priority"
    assert states["18"].expected_start is None and states["19"].expected_start is None, "a running job has started"


def test_arrays_and_times_are_read_as_slurm_writes_them() -> None:
    assert spelled_out("17_[0-2,7%4]") == ["17_0", "17_1", "17_2", "17_7"] and spelled_out("17") == ["17"]
    assert seconds("1-02:03:04") == 93784 and seconds("2:03") == 123 and seconds("INVALID") == 0
