"""What a job does before its function runs, and when SLURM takes its nodes back."""

import os
from pathlib import Path

import pytest

from jobs.cluster.submitit_jobs import IDLE_LIMIT, NoProgress, ResumableCall, export_ranks, local_slots, submit
from jobs.experiment.specs import ClusterSpec


def call(state: dict[str, int], *, elapsed_s: float) -> ResumableCall:
    """A job that is at `state["step"]` and has run for so long under a limit of an hour."""
    return ResumableCall(
        function=print,
        argument=state,
        progress=lambda state: state["step"],
        limit_s=3600,
        began_s=-elapsed_s,
        progress_at_start=state["step"],
    )


def interrupted(job: ResumableCall, monkeypatch: pytest.MonkeyPatch) -> ResumableCall:
    """The call that is queued when SLURM signals."""
    monkeypatch.setattr("jobs.cluster.submitit_jobs.time.monotonic", lambda: 0.0)
    again: ResumableCall = job.checkpoint().function
    return again


def test_a_job_that_reaches_its_limit_without_progress_is_ended_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    job = call({"step": 5}, elapsed_s=3590)
    for count in range(1, IDLE_LIMIT):
        job = interrupted(job, monkeypatch)
        assert job.idle == count
    with pytest.raises(NoProgress, match="checkpoint_steps"):
        interrupted(job, monkeypatch)


def test_a_job_that_makes_progress_may_reach_its_limit_any_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"step": 5}
    job = call(state, elapsed_s=3590)
    for _ in range(5 * IDLE_LIMIT):
        job.progress_at_start, state["step"] = state["step"], state["step"] + 1
        job = interrupted(job, monkeypatch)
    assert job.idle == 0


def test_preemption_never_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    job = call({"step": 5}, elapsed_s=100)
    for _ in range(5 * IDLE_LIMIT):
        job = interrupted(job, monkeypatch)
    assert job.idle == 0


def test_ranks_get_their_numbers_and_keep_the_gpus_that_slurm_gave_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "SUBMITIT_EXECUTOR": "slurm",
        "SUBMITIT_FOLDER": str(tmp_path),
        "SLURM_JOB_ID": "19",
        "SLURM_ARRAY_JOB_ID": "17",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_RESTART_COUNT": "2",
        "SLURM_NTASKS": "4",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "CUDA_VISIBLE_DEVICES": "2,5",
        "RANK": "0",  # of the session that the job was submitted from
    }
    monkeypatch.setattr(os, "environ", {**os.environ, **given})
    export_ranks()
    exported = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NNODES")}
    assert exported == {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "NNODES": "2"}
    assert os.environ["MEETING_FILE"] == str(tmp_path / "17_3-2.meeting"), "each attempt at a job has its own"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,5"


def test_a_job_of_one_rank_opens_no_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_FOLDER": str(tmp_path), "SLURM_JOB_ID": "19", "SLURM_NTASKS": "1"}
    monkeypatch.setattr(os, "environ", {**{name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}, **given})
    export_ranks()
    assert not {"WORLD_SIZE", "MEETING_FILE"} & os.environ.keys()


def test_a_login_nodes_cores_do_not_decide_how_stages_are_divided_into_slurms_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    assert local_slots(ClusterSpec(kind="slurm")) == 1 and local_slots(ClusterSpec(kind="slurm", max_parallel=8)) == 8
    assert local_slots(ClusterSpec(tasks_per_node=2)) == 32


@pytest.mark.parametrize(("given", "slots"), [(None, 2), ("3", 1), ("2,5,7", 1), ("GPU-a,GPU-b,GPU-c,GPU-d", 2), ("", 1)])
def test_no_more_jobs_run_side_by_side_than_there_are_gpus_for(monkeypatch: pytest.MonkeyPatch, given: str | None, slots: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr("jobs.cluster.gpus.installed_gpus", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert local_slots(ClusterSpec(gpus_per_node=2, tasks_per_node=2)) == slots
    assert local_slots(ClusterSpec(gpus_per_node=2, tasks_per_node=2, max_parallel=1)) == 1
    assert local_slots(ClusterSpec()) == 64


@pytest.mark.slow
def test_jobs_side_by_side_see_gpus_of_their_own_and_a_job_without_gpus_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_gpus(path: Path) -> None:  # here it goes to the jobs as it stands, and they need not import this package of tests, and torch
        path.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "not set"))

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937,GPU-d8f2,GPU-aa,MIG-7c1e")
    monkeypatch.setattr("jobs.cluster.gpus.installed_gpus", lambda: 4)
    jobs = {
        name: submit(ClusterSpec(gpus_per_node=gpus), tmp_path / f"job{name}", write_gpus, tmp_path / name, name="t", slot=slot)
        for name, gpus, slot in (("a", 2, 0), ("b", 2, 1), ("c", 0, 0))
    }
    for job in jobs.values():
        job.result()
    assert {name: (tmp_path / name).read_text() for name in jobs} == {"a": "GPU-8932f937,GPU-d8f2", "b": "GPU-aa,MIG-7c1e", "c": ""}
