"""An honest run, which the tests falsify."""

import shutil
from pathlib import Path

import pytest
import yaml

from harness.launch import main as launch
from jobs.cluster.claims import claimed

GRID = {
    "name": "honest",
    "data": {"source": "synthetic", "samples": 60, "classes": 2, "loader": "torch"},
    "recipe": {"epochs": 1, "finetune_epochs": 1, "batch_size": 16, "warmup_epochs": 0},
    "models": [{"name": "vim_micro", "dim": 8, "depth": 1}],
    "pruning": ["dense", {"method": "random", "sparsity": 0.5}, {"method": "magnitude", "sparsity": 0.5}],
    "seeds": [0, 1],
}


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A finished run with its tables, one for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "honest"
    folder.mkdir(exist_ok=True)
    with claimed(folder / "lock"):
        if not (folder / "runs").exists():
            cluster = {"kind": "debug", "profile_s": 0.001, "profile_batch": 2, "cache": str(folder / "cache")}
            (folder / "grid.yaml").write_text(yaml.safe_dump(GRID | {"cluster": cluster}))
            assert launch([str(folder / "grid.yaml"), "--runs", str(folder / "running")]) == 0
            (folder / "running").rename(folder / "runs")
    return folder / "runs" / "honest"


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    shutil.copytree(honest, tmp_path / "honest")
    return tmp_path / "honest"
