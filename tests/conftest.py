"""Settings of all tests; a run folder without training, and a SLURM without a cluster, for some."""

import gc
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, settings

from jobs.experiment.collector import USUAL
from tests.support.fake_slurm import FakeSlurm
from tests.support.honest_run import honest_run, tuned_run
from tests.support.processes import start_nursery
from tests.support.runs import FakeRun, fake_run

# Read when triton is first imported, which many packages do. Not in tests/__init__.py, which jobs of toy stages import too: they need no torch.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# The same examples in every run, and no time limit for one or for drawing them: a slow or busy machine is no failure.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

SOCKETS = pytest.StashKey["TemporaryDirectory[str]"]()
MANY_MODULES = 300
imported = SimpleNamespace(modules=0)  # their number when the collector was last told to leave them alone

# What is imported and collected stays to the end: looking through it again and again takes a tenth of a worker's time.
gc.set_threshold(100_000, 50, 100)


def pytest_configure(config: pytest.Config) -> None:
    """xdist would begin with the groups of most tests, and give both groups of SLURM to one worker. All workers share a process that forks ranks."""
    config.option.loadscopereorder = False
    if not hasattr(config, "workerinput"):
        start_nursery(Path(config.stash.setdefault(SOCKETS, TemporaryDirectory()).name))


def pytest_collection_finish() -> None:
    """The tests begin: Python's garbage collector works as usual, without what is there now."""
    leave_imports_alone()
    gc.set_threshold(*USUAL)


def pytest_runtest_logfinish() -> None:
    """A test has ended. Some import large packages: ZeRO-3 has all objects looked through for each of its engines."""
    if len(sys.modules) > imported.modules + MANY_MODULES:
        leave_imports_alone()


def leave_imports_alone() -> None:
    """From here on the collector looks through nothing that is there now."""
    gc.collect()
    gc.freeze()
    imported.modules = len(sys.modules)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The process ends."""
    if SOCKETS in config.stash:
        config.stash[SOCKETS].cleanup()
    gc.freeze()


# Tests that train on the daemons share what they compare with; the other tests of the daemons have a cluster of their own beside them.
TRAINING_ON_SLURM = ("test_survival", "test_outages")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on a real SLURM come first, in two workers with a cluster each: they wait for its daemons most of the time, while others compute.

    The slow tests of a file run in one worker, because they share what the file trains. They come next, and the quick ones fill what time is left.
    """
    for item in items:
        if item.get_closest_marker("slurm"):
            trains = any(item.nodeid.split("::")[0].endswith(f"{name}.py") for name in TRAINING_ON_SLURM)
            item.add_marker(pytest.mark.xdist_group("training on slurm" if trains else "slurm"))
        elif item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))
    items.sort(key=lambda item: next((at for at, marker in enumerate(("slurm", "slow")) if item.get_closest_marker(marker)), 2))


# Not in tests/harness/: pytest 9.1 forgets a folder's fixtures when files of another folder are named between two of its own.
@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A planned grid of six cells, of which nothing has run; the working directory is that of its grid.yaml."""
    monkeypatch.chdir(tmp_path)
    return fake_run(tmp_path)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """SLURM's commands, answering as the test says."""
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A finished run, one for all workers; whoever changes it copies it before."""
    base = tmp_path_factory.getbasetemp()
    return honest_run((base if worker_id == "master" else base.parent) / "honest")


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A finished run of tuned cells, one for all workers; whoever changes it copies it before."""
    base = tmp_path_factory.getbasetemp()
    return tuned_run((base if worker_id == "master" else base.parent) / "tuned")
