"""The response to errors of a stage, without training: retried, moved, or stopped with records that say why."""

from dataclasses import replace
from pathlib import Path
from subprocess import CalledProcessError, TimeoutExpired

import pytest

from jobs.cluster.slurm import SchedulerError
from jobs.experiment.files import write_json
from jobs.experiment.job import JobSpec
from jobs.experiment.run_folder import RunFolder
from jobs.parallel.devices import GpuMissing
from jobs.parallel.engine import Ranks
from jobs.recovery.micro_batch import stored_micro_batch
from jobs.recovery.nodes import faults
from jobs.recovery.triage import policy_of
from jobs.worker import failures
from jobs.worker import job as worker
from jobs.worker.failures import is_disk_full, is_peer_lost, stop_stage
from jobs.worker.job import NothingDone, run_job
from tests.support.fake_slurm import FakeSlurm
from tests.support.jobs import jobs_of, small_grid
from tests.support.one_stage import OneStage, one_rank


def test_a_failure_is_kept_with_a_record_for_every_cell_behind_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    orders, paths = jobs_of(small_grid(tmp_path), run)
    trunk = orders[0].stages[0]
    stop_stage(run, trunk, orders[0], ValueError("no"), one_rank())
    behind = [path for path in paths if trunk.id in path.stages]
    assert len(behind) == 3
    assert {record.status for path in behind if (record := run.record(path.cell.id))} == {"failed"}


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1234"),
        RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 600000ms for recv operation to complete"),
        RuntimeError("Application timeout caused pair closure"),
        RuntimeError("[gloo/transport/tcp/pair.cc:553] Read error [10.0.0.2]:1234: Connection timed out"),
        RuntimeError("Error writing file: No space left on device (os error 28)"),
        CalledProcessError(1, ["scontrol", "requeue", "17_3"]),  # what submitit raises when SLURM was faster
        TimeoutExpired(["scontrol", "requeue", "17_3"], 60),
        SchedulerError("squeue: Invalid job id specified"),
    ],
)
def test_a_lost_peer_a_full_disk_and_a_late_farewell_are_no_fault_of_the_cell(tmp_path: Path, error: Exception) -> None:
    run = RunFolder(tmp_path / "run")
    orders, _ = jobs_of(small_grid(tmp_path), run)
    stop_stage(run, orders[0].stages[0], orders[0], error, one_rank())
    assert not list(run.path.glob("**/*.json"))


def test_a_command_of_the_users_that_fails_is_a_failure(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    orders, _ = jobs_of(small_grid(tmp_path), run)
    stop_stage(run, orders[0].stages[0], orders[0], CalledProcessError(1, ["tar", "xf", "data.tar"]), one_rank())
    assert run.failure(orders[0].stages[0].id) is not None


@pytest.mark.parametrize("kind", [OSError("Input/output error"), ValueError("a mistake"), MemoryError()])
def test_what_goes_wrong_in_an_attempt_that_slurm_gave_up_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Exception) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setattr(failures, "REQUEUED_S", 0.0)
    run = RunFolder(tmp_path / "run")
    orders, _ = jobs_of(small_grid(tmp_path), run)
    stage = orders[0].stages[0]
    write_json(run.stage_dir(stage.id) / "stage.json", {"job": "17", "nodes": "node3", "restarts": 1, "started": "2026-01-01T00:00:00+00:00"})
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    before = sorted(run.path.rglob("*"))
    assert not failures.respond(run, stage, orders[0], kind, one_rank())
    assert sorted(run.path.rglob("*")) == before and not slurm.calls("scontrol"), "the attempt that runs now is not disturbed"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    failures.respond(run, stage, orders[0], kind, one_rank())
    assert sorted(run.path.rglob("*")) != before, "its own errors count"


def test_a_full_disk_is_seen_behind_what_it_led_to() -> None:
    error = RuntimeError("cannot write the checkpoint")
    error.__cause__ = OSError(28, "No space left on device")
    assert is_disk_full(error) and not is_disk_full(RuntimeError("other")) and not is_peer_lost(RuntimeError("other"))


def run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: OneStage) -> tuple[RunFolder, str]:
    """The run folder after one job of one trunk, and the trunk."""
    run = RunFolder(tmp_path / "run")
    orders, _ = jobs_of(small_grid(tmp_path), run)
    monkeypatch.setattr(worker, "run_stage", stage)
    run_job(orders[0])
    return run, orders[0].stages[0].id


NO_MEMORY = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def test_out_of_memory_goes_on_with_half_the_images_until_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = OneStage(NO_MEMORY, NO_MEMORY, None)
    run, trunk = run_alone(tmp_path, monkeypatch, stage)
    assert stage.micros == [None, 32, 16] and run.done(trunk) and run.failure(trunk) is None


def test_one_image_that_does_not_fit_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = OneStage(*[NO_MEMORY] * 7)
    run, trunk = run_alone(tmp_path, monkeypatch, stage)
    assert stage.micros == [None, 32, 16, 8, 4, 2, 1]
    failure = run.failure(trunk)
    assert failure is not None and "can't allocate memory" in failure.message and failure.host


def test_an_error_of_the_code_is_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = OneStage(ValueError("no"))
    run, trunk = run_alone(tmp_path, monkeypatch, stage)
    assert stage.micros == [None] and run.failure(trunk) is not None


def test_a_node_at_fault_is_counted_and_the_job_sent_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    for name, value in {"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "node2", "SLURM_RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(failures, "REQUEUED_S", 0.0)
    with pytest.raises(NothingDone):  # in earnest SLURM has killed the job before
        run_alone(tmp_path, monkeypatch, OneStage(RuntimeError("CUDA error: uncorrectable ECC error encountered")))
    run = RunFolder(tmp_path / "run")
    assert not list(run.path.glob("stages/*/failure.json")) and faults(run) == {"node2": 1}
    assert slurm.calls("scontrol") == ["requeue 17", "update JobId=17 ExcNodeList=node2"]


def test_a_node_at_fault_without_a_scheduler_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, trunk = run_alone(tmp_path, monkeypatch, OneStage(RuntimeError("CUDA error: uncorrectable ECC error encountered")))
    assert run.failure(trunk) is not None


SYSTEM_ERROR = "NCCL error in: /pytorch/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:3690, unhandled system error (run with NCCL_DEBUG=INFO for "
LOST = [
    f"{SYSTEM_ERROR}details), NCCL version 2.30.7\nncclSystemError: System call (e.g. socket, malloc) or external library call failed"
    " or device error.\nLast error:\nsocketProgress: Connection closed by remote peer node2<41022>",
    f"{SYSTEM_ERROR}details)\nLast error:\nsocketStartConnect: Connect to 10.0.0.2<41022> failed : Connection refused",
    f"{SYSTEM_ERROR}details)\nLast error:\nsocketPollConnect: connect to 10.0.0.2<41022> returned Connection timed out, exceeded error retry count",
    "NCCL error: remote process exited or there was a network error\nncclRemoteError: A call failed possibly due to a network error",
    "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600010 milliseconds",
    "NCCL communicator was aborted on rank 0.",
    "wait timeout after 600000ms, keys: /group/0//cpu//0",
    "[0] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value store, but store->get('0') got error: wait timeout",
    "[gloo] Connection closed by peer [127.0.0.1]:1234",
]


@pytest.mark.parametrize("message", LOST)
def test_a_rank_that_lost_another_blames_no_node_and_leaves_the_stage_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    for name, value in {"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "node1", "SLURM_RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(failures, "REQUEUED_S", 0.0)
    run = RunFolder(tmp_path / "run")
    jobs, _ = jobs_of(small_grid(tmp_path), run)
    two = Ranks(rank=0, local_rank=0, world=2, device=one_rank().device)
    assert not failures.respond(run, jobs[0].stages[0], jobs[0], RuntimeError(message), two)
    assert faults(run) == {} and run.failure(jobs[0].stages[0].id) is None and not slurm.calls("scontrol")


def test_a_system_error_without_a_lost_peer_is_the_nodes_own() -> None:
    message = f"{SYSTEM_ERROR}details)\nLast error:\nError while creating shared memory segment /dev/shm/nccl-x (size 9637888)"
    assert not is_peer_lost(RuntimeError(message)) and policy_of("DistBackendError", message) == "elsewhere"


def test_of_several_ranks_the_job_is_queued_again_with_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr(failures, "REQUEUED_S", 0.0)
    run = RunFolder(tmp_path / "run")
    orders, _ = jobs_of(small_grid(tmp_path), run)
    spec = orders[0].stages[0]
    two = Ranks(rank=1, local_rank=1, world=2, device=one_rank().device)
    assert not failures.respond(run, spec, orders[0], NO_MEMORY, two)
    assert stored_micro_batch(run.stage_dir(spec.id)) == 16 and run.failure(spec.id) is None and slurm.calls("scontrol") == ["requeue 17"]


@pytest.mark.parametrize(("restarts", "moved"), [(0, True), (1, True), (2, True), (3, False), (4, False)])
def test_a_job_is_moved_three_times_and_then_its_stage_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: int, moved: bool
) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    for name, value in {"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "node2", "SLURM_RESTART_COUNT": str(restarts)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setattr(failures, "REQUEUED_S", 0.0)
    run = RunFolder(tmp_path / "run")
    jobs, _ = jobs_of(small_grid(tmp_path), run)
    stage = jobs[0].stages[0]
    assert not failures.respond(run, stage, jobs[0], RuntimeError("CUDA error: uncorrectable ECC error encountered"), one_rank())
    assert ("requeue 17" in slurm.calls("scontrol")) is moved
    assert (run.failure(stage.id) is None) is moved and faults(run) == {"node2": 1}


@pytest.mark.parametrize("denied", ["scontrol: error: Access/permission denied for job 17", "Requested operation is presently disabled for job 17"])
def test_without_the_right_to_requeue_a_stage_is_left_for_the_next_launch_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], denied: str
) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    slurm.fails("scontrol", denied)
    for name, value in {"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "node2", "SLURM_RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    run = RunFolder(tmp_path / "run")
    jobs, _ = jobs_of(small_grid(tmp_path), run)
    stage = jobs[0].stages[0]
    assert not failures.respond(run, stage, jobs[0], RuntimeError("CUDA error: uncorrectable ECC error encountered"), one_rank())
    assert run.failure(stage.id) is None and faults(run) == {"node2": 1}, "a fault of the node, not of the cell"
    told = capsys.readouterr()
    assert denied in told.err and f"stage {stage.id} is left for the next launch, since SLURM does not queue this job again" in told.out
    at_the_limit = CalledProcessError(1, ["scontrol", "requeue", "17"])  # of submitit, when the time is over
    assert not failures.respond(run, stage, jobs[0], at_the_limit, one_rank()) and run.failure(stage.id) is None
    assert "the next launch goes on from there" in capsys.readouterr().out


class Blind:
    """torch on a node whose GPUs are gone, or torch's build for CPUs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cuda: str | None) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr("torch.version.cuda", cuda)
        monkeypatch.setattr(failures, "REQUEUED_S", 0.0)


def promised(tmp_path: Path) -> tuple[RunFolder, JobSpec]:
    """A job of several stages that was promised GPUs."""
    run = RunFolder(tmp_path / "run")
    job = jobs_of(small_grid(tmp_path, stages_per_job=4), run)[0][0]
    return run, replace(job, cluster=replace(job.cluster, gpus_per_node=4))


def test_a_job_without_its_gpus_moves_to_another_node_and_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    for name, value in {"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "node2", "SLURM_RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    Blind(monkeypatch, cuda="13.0")
    run, job = promised(tmp_path)
    with pytest.raises(GpuMissing, match="sees no GPU"):
        run_job(job)
    assert faults(run) == {"node2": 1} and "requeue 17" in slurm.calls("scontrol")
    assert not list(run.path.glob("stages/*/failure.json"))


@pytest.mark.parametrize("cuda", ["13.0", None])
def test_a_local_job_without_its_gpus_fails_with_the_reason_on_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: str | None) -> None:
    Blind(monkeypatch, cuda)
    run, job = promised(tmp_path)
    run.export_dir(job.stages[0].id).mkdir(parents=True)
    with pytest.raises(GpuMissing):
        run_job(job)
    assert run.failure(job.stages[0].id) is None, "a stage that is done stays done"
    reasons = [failure.message for spec in job.stages[1:] if (failure := run.failure(spec.id))]
    assert len(reasons) == len(job.stages) - 1 > 0 and all("the job asks for GPUs" in reason for reason in reasons)
