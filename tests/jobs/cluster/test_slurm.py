"""Questions to SLURM: patience with a controller that is down, and no guesses without an answer."""

from pathlib import Path

import pytest

from jobs.cluster import slurm as module
from jobs.cluster.slurm import SchedulerError, SchedulerSilent, ask, on_nodes, requeue, this_job
from tests.support.fake_slurm import SILENT, FakeSlurm


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)


def test_a_controller_that_comes_back_is_waited_for_with_one_message(slurm: FakeSlurm) -> None:
    messages: list[str] = []
    slurm.says("squeue", "all well")
    slurm.fails("squeue", SILENT, once=True)
    assert ask("squeue", say=messages.append) == "all well\n"
    assert len(slurm.calls("squeue")) == 2 and len(messages) == 1 and "does not answer" in messages[0]


def test_a_controller_that_stays_down_is_no_answer(slurm: FakeSlurm) -> None:
    slurm.fails("squeue", SILENT)
    with pytest.raises(SchedulerSilent, match="does not answer"):
        ask("squeue", patience_s=0.05, say=lambda text: None)
    assert on_nodes("17") is None


def test_a_refusal_is_passed_on_at_once(slurm: FakeSlurm) -> None:
    slurm.fails("scancel", "scancel: error: Access/permission denied")
    with pytest.raises(SchedulerError, match="permission denied"):
        ask("scancel", "17")
    assert len(slurm.calls("scancel")) == 1


def test_a_command_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match="no squeue on this machine"):
        ask("squeue")


@pytest.mark.parametrize(
    ("state", "lives"), [("RUNNING", True), ("COMPLETING", True), ("PENDING", False), ("NODE_FAIL", False), ("COMPLETED", False)]
)
def test_a_job_has_processes_in_some_states_alone(slurm: FakeSlurm, state: str, lives: bool) -> None:
    slurm.says("squeue", state)
    assert on_nodes("17_3") is lives


def test_a_job_that_slurm_never_heard_of_has_no_processes(slurm: FakeSlurm) -> None:
    slurm.fails("squeue", "slurm_load_jobs error: Invalid job id specified")
    assert on_nodes("17") is False


def test_a_job_is_queued_again_without_a_node(slurm: FakeSlurm) -> None:
    assert requeue("17_3", ["node2", "node4"])
    assert slurm.calls("scontrol") == ["requeue 17_3", "update JobId=17_3 ExcNodeList=node2,node4"]
    slurm.fails("scontrol", "Requested operation is presently disabled")
    assert not requeue("17_3")


def test_a_process_knows_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert this_job() is None
    monkeypatch.setenv("SLURM_JOB_ID", "20")
    assert this_job() == "20"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert this_job() == "17_3"
