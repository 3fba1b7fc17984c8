"""Status and logs beside the real daemons."""

import os
import signal
import threading
from pathlib import Path

import pytest

from harness import logs, status
from harness.monitor.survey import survey
from tests.slurm.conftest import SCRIPTS, Cluster
from tests.slurm.toy_grid import FEW, ToyGrid
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_status_and_logs_tell_what_the_daemons_do_and_a_controller_that_is_down_changes_no_verdict(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    toys = ToyGrid.of(cluster, tmp_path, monkeypatch, FEW)
    held, free = toys.trunks
    toys.set_behaviour("hold", held)
    assert toys.launch() == 0
    toys.wait_for(done=1, running=1)
    capfd.readouterr()

    assert status.main([]) == 0
    output = " ".join(capfd.readouterr().out.split())
    job = str(toys.look().job_of[held].job)
    node = cluster.call("squeue", "--noheader", "--format=%N", f"--jobs={job}").strip()
    assert f"{held} vim_micro train seed 0 starting {job} {node}" in output and "1 of 2 cells done" in output

    assert logs.main([held[:8]]) == 0
    assert f"stage {held}: vim_micro  train  seed 0" in capfd.readouterr().out

    wait_until(lambda: [name for name, state in cluster.jobs().items() if state in ("RUNNING", "COMPLETING")] == [job], "the other jobs to be over")
    controller = int((cluster.root / "run" / "slurmctld.pid").read_text())
    os.kill(controller, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{controller}").exists(), "the controller to end")
    down = survey(toys.run, patience_s=0.0, say=lambda text: None)
    assert down.silent and [*down.states.values()].count("unknown") == 1 and [*down.states.values()].count("done") == 1
    back = threading.Timer(1.0, lambda: cluster.call(SCRIPTS / "up.sh"))
    back.start()
    states = list(survey(toys.run, patience_s=PATIENCE_S).states.values())
    assert sorted(states) == ["done", "running"], "it is waited for"
    back.join()

    toys.release(held)
    toys.wait_for(done=2)
    toys.end()
