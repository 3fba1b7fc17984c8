"""A SLURM for the tests alone: real daemons on this machine, started once and stopped at the end.

TESTCLUSTER_SLURM=24.11 in the environment takes that version in place of the machine's own, as for slurm/testcluster/up.sh.
"""

import fcntl
import os
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import pytest

from tests.slurm import trained_grids
from tests.support.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "slurm" / "testcluster"
NUMBERS = range(9, 4, -1)  # the clusters of the tests; 0 to 4 are left to people
UNAVAILABLE = 3  # up.sh: this machine cannot have a cluster
LATE = "timed out"  # SLURM's words for a controller that has not answered within MessageTimeout
LOG_LINES = 150  # of the controller's log, that a failed test shows


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running test cluster."""

    root: Path  # its folder: etc, log, run
    environment: dict[str, str]  # by which SLURM's commands, and ours, find it

    def reach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lets this process find it too."""
        for name in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(name, self.environment[name])

    def call(self, *command: object, check: bool = True) -> str:
        """What a command prints. AssertionError with that text if the command fails. A question is asked again if a busy controller was late."""
        until = time.monotonic() + PATIENCE_S
        while True:
            done = subprocess.run([*map(str, command)], env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
            asks = command[0] in ("squeue", "sinfo") or command[:2] == ("scontrol", "show")
            if not (check and asks and done.returncode and LATE in done.stderr and time.monotonic() < until):
                break
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def node(self, how: str, name: str) -> None:
        """Lets a node fail or return. `how`: kill it with all that runs on it, or start it; cut its network, or mend it."""
        self.call(SCRIPTS / "node.sh", how, name)

    @property
    def mode(self) -> str:
        """How its nodes are separated: netns, uts or plain."""
        return (self.root / "run" / "mode").read_text().strip()

    def stop_controller(self) -> None:
        """Returns when slurmctld has ended."""
        pid = (self.root / "run" / "slurmctld.pid").read_text().strip()
        self.call("kill", pid)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the controller to end")

    def start_controller(self) -> None:
        """Returns when slurmctld answers."""
        self.call(SCRIPTS / "up.sh")

    def jobs(self) -> dict[str, str]:
        """State of every job that SLURM still knows, by id as SLURM writes it; each task of an array is a job."""
        lines = self.call("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def described(self) -> str:
        """What SLURM says of its nodes and jobs, and the end of the controller's log."""
        answers = [self.call(*command, check=False) for command in (("sinfo", "--Node", "--long"), ("squeue", "--array", "--states=all", "--long"))]
        log = (self.root / "log" / "slurmctld.log").read_text().splitlines()[-LOG_LINES:]
        return "\n".join([*answers, *log])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the state of its cluster to the report of a test that fails."""
    report = yield
    clusters = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Cluster)]
    if report.failed:
        report.sections += [(f"SLURM at {cluster.root}", cluster.described()) for cluster in clusters]
    return report


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 24 MB, which a copy of the code fits on, mounted before the nodes start, so that they see it."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Four nodes of two CPUs, without accounting."""
    if os.getuid() == 0:
        with suppress(pytest.skip.Exception):
            request.getfixturevalue("small_disk")
    yield from started()


@pytest.fixture(scope="session")
def accounting_cluster() -> Iterator[Cluster]:
    """One node of two CPUs, with slurmdbd and MariaDB."""
    yield from started(TESTCLUSTER_ACCOUNTING="1", TESTCLUSTER_NODES="1")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> trained_grids.Undisturbed:
    """Trains seeds 0 to 3 of a grid on this machine, the first time that it is called. Returns their weights, by seed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return cache(lambda: trained_grids.trained_here(folder, seeds=4, stages_per_job=8))


def started(**settings: str) -> Iterator[Cluster]:
    """A cluster whose number no other test session has. Skips if this machine cannot have a cluster."""
    with free_number() as lock:
        number = Path(lock.name).stem
        own = {"TESTCLUSTER": number, "TESTCLUSTER_ROOT": f"/tmp/vssm-testcluster-{number}", "TESTCLUSTER_PATIENCE": f"{PATIENCE_S:.0f}"}
        environment = {**os.environ, **settings, **own}
        subprocess.run([SCRIPTS / "down.sh"], env=environment, capture_output=True, timeout=PATIENCE_S, check=False)  # what a killed test run left
        up = subprocess.run([SCRIPTS / "up.sh"], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if up.returncode == UNAVAILABLE:
            pytest.skip(up.stderr.strip().splitlines()[-1])
        assert up.returncode == 0, up.stdout + up.stderr
        root = Path(environment["TESTCLUSTER_ROOT"])
        try:
            path = subprocess.run(["bash", "-c", f'. {root}/env.sh && echo "$PATH"'], capture_output=True, text=True, check=True).stdout.strip()
            yield Cluster(root=root, environment=environment | {"SLURM_CONF": f"{root}/etc/slurm.conf", "PATH": path, "PYTHONPATH": str(ROOT)})
        finally:
            subprocess.run([SCRIPTS / "down.sh"], env=environment, capture_output=True, timeout=PATIENCE_S, check=False)


def free_number() -> IO[str]:
    """The open, locked file of a free number. The kernel unlocks it when this process ends."""
    folder = Path("/tmp/vssm-testclusters")
    folder.mkdir(exist_ok=True)
    for number in NUMBERS:
        file = (folder / f"{number}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        return file
    pytest.skip("all test clusters are in use by other test runs")


def processes(job: str, variable: str) -> list[Path]:
    """The folders in /proc of the processes of a job that have a variable, such as SLURMD_NODENAME=node2."""
    marks = {f"SLURM_JOB_ID={job}".encode(), variable.encode()}
    running = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            running += [folder] if marks <= set((folder / "environ").read_bytes().split(b"\0")) else []
    return running
