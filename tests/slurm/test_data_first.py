"""Data that an array of CPU jobs writes on real nodes, and trainings that wait for it."""

import json
import re
from pathlib import Path

import pytest

from jobs.data.prepare import prepare
from jobs.experiment.specs import DataSpec
from tests.slurm.conftest import Cluster
from tests.slurm.toy_grid import FEW, ToyGrid
from tests.support.images import write_folder
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
DATA = "data: {source: imagefolder, path: images, img_size: 32, loader: torch}"


@pytest.fixture
def toys(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "object":
    """Two trainings on a folder of images, which the test writes."""
    text = f"{FEW}{DATA}\n"
    toys = ToyGrid.of(cluster, tmp_path, monkeypatch, text, cache=tmp_path / "cache", prepare="{jobs: 2, cpus_per_task: 1, mem_gb: 0.9}")
    yield toys
    toys.end()
    cluster.call("scancel", "--name=prepare", check=False)


def write_images(folder: Path, count: int) -> None:
    """Two classes of `count` images each to train on, and a few to validate on."""
    write_folder(folder / "images" / "train", count=count, size=(64, 48))
    write_folder(folder / "images" / "val", count=8, size=(64, 48))


def test_trainings_depend_on_the_array_that_writes_their_data(toys: ToyGrid, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path, count=1100)  # 3 shards
    assert toys.launch() == 0
    said = capsys.readouterr().out
    found = re.search(r"images: written first, by SLURM job (\d+) \(2 jobs of 1 CPU\), logs in (\S+)", said)
    assert found is not None, said
    waiting = toys.cluster.call("squeue", "--noheader", "--name=toys", "--states=PENDING", "--format=%E")
    assert f"afterok:{found[1]}" in waiting or not toys.cluster.call("squeue", "--noheader", "--name=prepare")
    toys.wait_for(done=2)
    folder = next((tmp_path / "cache").glob("imagefolder-*/source.json")).parent
    started = min(json.loads(path.read_text())["started"] for path in toys.run.path.glob("stages/*/stage.json"))
    logs = "".join(path.read_text() for path in Path(found[2]).glob("*.out"))
    assert "written" in logs and started
    here = prepare(DataSpec(source="imagefolder", path=str(tmp_path / "images"), img_size=32, loader="torch"), tmp_path / "here", workers=2)
    assert here.train.read_bytes() == (folder / "train.beton").read_bytes()
    first = min(path.stat().st_mtime for path in toys.run.path.glob("stages/*/attempts"))
    assert first >= (folder / "source.json").stat().st_mtime, "no training had started before the data was there"


def test_trainings_leave_the_queue_when_their_data_cannot_be_written_and_the_next_launch_says_why(
    toys: ToyGrid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, count=100)
    image = tmp_path / "images" / "train" / "cat" / "0.png"
    image.write_bytes(image.read_bytes()[:300])  # its header is whole
    assert toys.launch() == 0
    wait_until(lambda: not toys.cluster.call("squeue", "--noheader", "--name=toys,prepare").strip(), "the queue to be empty")
    assert not list(toys.run.path.glob("stages/*/attempts"))
    capsys.readouterr()
    assert toys.launch() == 0
    assert "it could not be written before: " in (said := capsys.readouterr().out) and "cat/0.png: cannot be decoded" in said
