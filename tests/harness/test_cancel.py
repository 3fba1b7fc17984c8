"""The jobs that cancel ends, and those that it leaves alone."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cancel import NOT_ALL, NOTHING, OK, USAGE, main
from harness.launch import INTERRUPTED
from harness.monitor import survey as survey_module
from harness.status import main as status
from tests.support.commands import GRID, processes_of, wait_for, written
from tests.support.fake_slurm import SILENT, FakeSlurm
from tests.support.held_launch import start_held
from tests.support.runs import FakeRun, elsewhere
from tests.support.waiting import PATIENCE_S


def submit_all(fake: FakeRun, slurm: FakeSlurm) -> None:
    """Trunks as 17_0 (running) and 17_1, their children as 18_0 to 18_5 (waiting)."""
    children = [path.stages[1] for path in fake.paths]
    fake.submit({f"17_{index}": [stage] for index, stage in enumerate(fake.trunks)})
    fake.submit({f"18_{index}": [stage] for index, stage in enumerate(children)})
    slurm.queue(j17_0="RUNNING", j17_1="PENDING:Resources", **{f"j18_{index}": "PENDING:Dependency" for index in range(6)})


def test_a_grids_arrays_are_cancelled_whole_and_counted(fake: FakeRun, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    submit_all(fake, slurm)
    assert main(["grid.yaml"]) == OK
    assert slurm.calls("scancel") == ["17 18"]
    output = capsys.readouterr().out
    assert "cancelled 1 job (17_0) that ran" in output and "cancelled 7 jobs (17_1" in output and "that waited" in output
    assert "checkpoints are kept" in output and "python -m harness.launch" in output


def test_what_does_not_run_needs_no_cancelling(fake: FakeRun, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid.yaml"]) == NOTHING and "nothing to cancel" in capsys.readouterr().out
    assert not slurm.calls("scancel")


def test_a_cell_takes_its_own_stage_along_and_leaves_the_shared_one(fake: FakeRun, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    submit_all(fake, slurm)
    path = fake.cells_of(fake.trunks[0])[1]
    job = f"18_{fake.paths.index(path)}"
    assert main([path.cell.id[:8]]) == OK
    assert slurm.calls("scancel") == [job]
    output = capsys.readouterr().out
    assert f"cancelled 1 job ({job}) that waited" in output and f"stage {fake.trunks[0]}" in output and "need it" in output
    assert fake.run.cancelled(path.cell.id)


def test_the_last_cell_of_a_trunk_takes_the_trunk_along(fake: FakeRun, slurm: FakeSlurm) -> None:
    submit_all(fake, slurm)
    for path in fake.cells_of(fake.trunks[0]):
        assert main([path.cell.id]) == OK
    cancelled = " ".join(slurm.calls("scancel")).split()
    assert "17_0" in cancelled and "17_1" not in cancelled and len(cancelled) == 4


def test_a_job_with_other_cells_stages_is_queued_again_without_this_cells(
    fake: FakeRun, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.finish(fake.trunks[0])
    first, second, _ = fake.cells_of(fake.trunks[0])
    fake.submit({"17": [first.stages[1], second.stages[1]]})
    slurm.queue(j17="RUNNING")
    assert main([second.cell.id]) == OK
    assert not slurm.calls("scontrol") and "will skip the cell's stages" in capsys.readouterr().out, "the job is not at that stage yet"
    assert main([first.cell.id]) == OK, "now the whole job is unwanted"
    assert slurm.calls("scancel") == ["17"] and not slurm.calls("scontrol")


def test_a_job_that_is_at_the_cells_stage_starts_again_for_the_others(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.finish(fake.trunks[0])
    first, second, _ = fake.cells_of(fake.trunks[0])
    fake.submit({"17": [first.stages[1], second.stages[1]]})
    slurm.queue(j17="RUNNING")
    assert main([first.cell.id]) == OK
    assert slurm.calls("scontrol") == ["requeue 17"] and not slurm.calls("scancel")


def test_a_job_that_slurm_does_not_queue_again_is_named_and_counts_as_not_cancelled(
    fake: FakeRun, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.finish(fake.trunks[0])
    first, second, _ = fake.cells_of(fake.trunks[0])
    fake.submit({"17": [first.stages[1], second.stages[1]]})
    slurm.queue(j17="RUNNING")
    slurm.fails("scontrol", "Requested operation is presently disabled for job 17")
    assert main([first.cell.id]) == NOT_ALL
    assert "NOT ended: job 17, which also has stages of other cells" in capsys.readouterr().out


def test_a_local_job_at_the_cells_stage_is_ended_and_its_launch_starts_another(
    fake: FakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(survey_module, "works_for", lambda pid, folder: True)
    monkeypatch.setattr("harness.cancel.end_process", ended.append)
    fake.finish(fake.trunks[0])
    first, second, _ = fake.cells_of(fake.trunks[0])
    fake.submit({f"{socket.gethostname()}:4711": [first.stages[1], second.stages[1]]})
    assert main([first.cell.id]) == OK and ended == [4711]
    assert "process 4711; its launch starts another job for the other cells' stages" in capsys.readouterr().out


def test_a_cell_that_is_done_is_left_alone(fake: FakeRun, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    path = fake.paths[0]
    for stage in path.stages:
        fake.finish(stage)
    fake.record(path)
    assert main([path.cell.id]) == NOTHING and "is done" in capsys.readouterr().out
    assert not fake.run.cancelled(path.cell.id)


def test_a_stage_is_no_cell(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([fake.trunks[0]]) == USAGE and "is a stage" in capsys.readouterr().err


def test_nothing_is_cancelled_on_a_guess(
    fake: FakeRun, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_all(fake, slurm)
    slurm.fails("squeue", SILENT)
    monkeypatch.setattr("jobs.cluster.slurm.time.sleep", lambda seconds: None)
    monkeypatch.setattr("harness.cancel.survey", lambda run: survey_module.survey(run, patience_s=0.0))
    assert main(["grid.yaml"]) == NOT_ALL
    assert "cancellation state unknown; rerun this command later" in capsys.readouterr().err and not slurm.calls("scancel")


def test_a_local_job_is_killed_with_its_children(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fake.run.path / "jobs" / "1"
    folder.mkdir(parents=True)
    script = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '1200']).pid, flush=True); time.sleep(1200)"
    job = subprocess.Popen([sys.executable, "-c", script, str(folder.resolve())], stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    child = int(job.stdout.readline())
    (folder / "stages.json").write_text(json.dumps({f"{socket.gethostname()}:{job.pid}": [fake.trunks[0]]}))
    assert main(["runs/small"]) == OK
    job.wait(PATIENCE_S)  # psutil may have taken its exit status
    job.stdout.close()
    assert f"ended the local job of process {job.pid}" in capsys.readouterr().out
    assert not os.path.exists(f"/proc/{child}") or Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"


def test_a_job_of_another_machine_is_named_and_not_claimed_to_be_ended(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    fake.submit({elsewhere(): [fake.trunks[0]]})
    fake.beat(fake.trunks[0])
    assert main(["runs/small"]) == NOT_ALL
    output = capsys.readouterr().out
    assert "NOT ended" in output and "run this command there" in output


def test_a_launch_on_another_machine_is_named_and_not_ended(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    fake.run.launch_lock.write_text(json.dumps({"host": "not-this-one", "pid": 4711, "job": None, "attempt": 0, "key": "a"}) + "\n")
    assert main(["runs/small"]) == NOT_ALL
    assert "NOT ended: the launch by process 4711 on not-this-one; run this command there" in capsys.readouterr().out


@pytest.mark.slow
def test_a_local_launch_is_stopped_with_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of its commands one is a process: the launch."""
    monkeypatch.chdir(tmp_path)
    grid = written(tmp_path, GRID)
    launcher = start_held(grid, stages=0, step=1)
    wait_for(lambda: list(tmp_path.glob("runs/small/jobs/*/stages.json")) and list(tmp_path.glob("runs/small/stages/*/stage.json")), launcher)
    assert status([str(grid)]) == OK
    seen = capsys.readouterr().out
    assert "2 of 2 cells" not in seen and f"{socket.gethostname()}:" in seen, seen
    assert main([str(grid)]) == OK
    assert f"stopped the launch by process {launcher.pid} and its jobs" in capsys.readouterr().out
    launcher.communicate(timeout=PATIENCE_S)
    assert launcher.returncode == INTERRUPTED and not processes_of(tmp_path)
    assert main([str(grid)]) == NOTHING
