"""A grid's run folder without training, and a SLURM without a cluster."""

from pathlib import Path

import pytest

from tests.harness.fake_slurm import FakeSlurm
from tests.harness.make_runs import FakeRun, fake_run


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A planned grid of six cells, of which nothing has run; the working directory is that of its grid.yaml."""
    monkeypatch.chdir(tmp_path)
    return fake_run(tmp_path)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """SLURM's commands, answering as the test says."""
    return FakeSlurm(tmp_path / "slurm", monkeypatch)
