"""Two users with one run folder: children of this process with other user ids. Needs root."""

import os
import pwd
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import status
from harness.grid.read import read_grid
from harness.launch import SOME_FAILED, main
from harness.plan.preflight import Findings
from harness.plan.snapshot import save_launch
from harness.plan.stages import make_graph
from jobs.cluster.claims import claimed
from jobs.experiment.run_folder import RunFolder
from tests.support.jobs import GRID

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become two users")
TEAM = 54321  # a group of these two alone


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that a team shares, with a grid."""
    path = Path(tempfile.mkdtemp())
    os.chown(path, -1, TEAM)
    path.chmod(0o2775)
    (path / "grid.yaml").write_text(GRID.replace("STAGES", "1"))
    yield path
    shutil.rmtree(path)


def as_user(name: str, umask: int, work: Callable[[], int | None]) -> tuple[int, str]:
    """Exit code of `work`, and what it says, as a user of the team; 99 where it raised."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        sys.stdout = sys.stderr = os.fdopen(writing, "w", buffering=1)
        try:
            os.setgroups([])
            os.setgid(TEAM)
            os.setuid(pwd.getpwnam(name).pw_uid)
            os.umask(umask)
            os._exit(work() or 0)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def work_in(folder: Path) -> None:
    """What a launch and a job do to a run folder."""
    grid = read_grid(folder / "grid.yaml")
    plan = make_graph(grid.cells)
    run = RunFolder(folder / "runs" / "small")
    with claimed(run.path / "launch.lock", wait=False) as alone:
        assert alone
        save_launch(grid, plan, run)
    stage = next(iter(plan.stages))
    with claimed(run.path / "claims" / stage, wait=False) as alone:
        assert alone
        run.forget_failures([stage], [])
        (run.stage_dir(stage) / "checkpoints").mkdir(parents=True, exist_ok=True)


def test_where_the_umask_lets_a_group_write_two_users_share_a_run(folder: Path) -> None:
    for user in ("daemon", "nobody", "daemon"):
        code, text = as_user(user, 0o002, lambda: work_in(folder))
        assert code == 0, text


def test_where_it_does_not_the_owner_and_the_remedy_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.launch.preflight", lambda grid, cells: Findings())  # it imports torch, and root's Python may be closed to others
    assert as_user("daemon", 0o022, lambda: work_in(folder)) == (0, "")
    code, text = as_user("nobody", 0o022, lambda: main([str(folder / "grid.yaml"), "--runs", str(folder / "runs")]))
    assert code == SOME_FAILED, text
    assert "Permission denied" in text and "belongs to daemon" in text and "chmod -R g+w" in text and "--runs" in text
    assert "Traceback" not in text


def test_who_may_only_look_sees_the_status(folder: Path) -> None:
    assert as_user("daemon", 0o022, lambda: work_in(folder)) == (0, "")
    code, text = as_user("nobody", 0o022, lambda: status.main([str(folder / "runs" / "small")]))
    assert code == 0 and "0 of 6 cells done" in text, text
