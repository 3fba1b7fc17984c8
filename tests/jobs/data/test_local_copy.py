"""Copies on a node's own disk: made once, verified, and made again where they are torn."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.data import local_copy
from jobs.data.beton import DataError
from jobs.data.local_copy import copied, local_cache
from jobs.data.prepare import Dataset, prepare
from tests.support.images import SMALL
from tests.support.waiting import PATIENCE_S, wait_until


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A small data set in the cache that all nodes share."""
    return prepare(replace(SMALL, loader="torch"), tmp_path / "cache")


def same(first: Dataset, second: Dataset) -> bool:
    return first.train.read_bytes() == second.train.read_bytes() and first.test.read_bytes() == second.test.read_bytes()


def test_files_are_copied_once(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = copied(dataset, tmp_path / "disk")
    assert (
        same(local, dataset) and local.train.is_relative_to(tmp_path / "disk") and replace(local, train=dataset.train, test=dataset.test) == dataset
    )
    before = {path: path.stat().st_mtime_ns for path in (local.train, local.test)}
    assert capsys.readouterr().out.count("copying") == 2
    assert copied(dataset, tmp_path / "disk") == local and capsys.readouterr().out == ""
    assert {path: path.stat().st_mtime_ns for path in (local.train, local.test)} == before


def test_ready_files_of_one_name_in_two_folders_are_two_files(dataset: Dataset, tmp_path: Path) -> None:
    moved = replace(dataset, train=tmp_path / "train" / "images.beton", test=tmp_path / "test" / "images.beton")
    for path, target in ((dataset.train, moved.train), (dataset.test, moved.test)):
        target.parent.mkdir()
        path.rename(target)
    local = copied(moved, tmp_path / "disk")
    assert local.train != local.test and same(local, moved) and copied(moved, tmp_path / "disk") == local
    one = replace(moved, test=moved.train)
    assert same(copied(one, tmp_path / "other disk"), one)


def torn(path: Path) -> None:
    """Leaves half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed(path: Path) -> None:
    """Changes a byte of a file, whose size stays."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(0, 1))


@pytest.mark.parametrize(
    "damage",
    [torn, changed, Path.unlink, lambda path: local_copy.note_path(path).unlink(), lambda path: local_copy.note_path(path).write_text("{")],
    ids=["torn", "changed", "gone", "without its note", "with a torn note"],
)
def test_a_copy_that_is_not_whole_is_made_again(dataset: Dataset, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    local = copied(dataset, tmp_path / "disk")
    damage(local.train)
    (local.train.parent / ".train.beton.torn").write_bytes(b"half")
    assert same(copied(dataset, tmp_path / "disk"), dataset)
    assert not (local.train.parent / ".train.beton.torn").exists()


def test_an_original_that_was_damaged_is_not_copied(dataset: Dataset, tmp_path: Path) -> None:
    changed(dataset.train)
    with pytest.raises(DataError, match="train.beton: its content is not what was written"):
        copied(dataset, tmp_path / "disk")
    assert not list((tmp_path / "disk").rglob("*train.beton*"))


def test_a_disk_without_room_is_told_before_anything_is_copied(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: os.terminal_size((0, 0)) and type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match="a copy of the data needs .* MB, and 1 kB are free: free space there, or leave out cluster.cache_local"):
        copied(dataset, tmp_path / "disk")
    assert not list((tmp_path / "disk").rglob("*.torn"))


def test_a_folder_that_cannot_be_made_is_named(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"file.* on .*: (Not a directory|File exists): free space there, or set cluster.cache_local"):
        copied(dataset, tmp_path / "file")


def test_a_variable_that_the_node_does_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    assert local_cache("${SCRATCH}/data") == Path("/scratch/me/data")
    monkeypatch.delenv("SCRATCH")
    with pytest.raises(DataError, match=r"cluster.cache_local: \$SCRATCH/data: \$SCRATCH is not set on "):
        local_cache("$SCRATCH/data")


COPY = """
import sys, time
from pathlib import Path
from jobs.data import local_copy
from jobs.data.prepare import prepare
from jobs.experiment.specs import DataSpec
local_copy.CHUNK = 1 << 20
print_ = print
class Slow:
    def __init__(self): self.digest = local_copy.hashlib.new("sha256")
    def update(self, chunk): time.sleep(float(sys.argv[3])); self.digest.update(chunk)
    def hexdigest(self): return self.digest.hexdigest()
local_copy.hashlib = type("hashlib", (), {"sha256": Slow, "new": local_copy.hashlib.new})
data = DataSpec(source="synthetic", samples=96, classes=4, img_size=16, augment="shift", flip=True, loader="torch")
local_copy.copied(prepare(data, Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_of_several_processes_one_copies_and_a_killed_copy_is_made_again(dataset: Dataset, tmp_path: Path) -> None:
    def start(pause_s: float) -> "subprocess.Popen[str]":
        arguments = [sys.executable, "-c", COPY, str(tmp_path / "cache"), str(tmp_path / "disk"), str(pause_s)]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    first = start(PATIENCE_S)  # it never comes to the end of its first chunk
    wait_until(lambda: list((tmp_path / "disk").rglob("*.torn")), "a copy that has begun")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert list((tmp_path / "disk").rglob("*.torn")) and not list((tmp_path / "disk").rglob("train.beton"))
    several = [start(0.02) for _ in range(3)]
    said = [process.communicate(timeout=PATIENCE_S)[0] for process in several]
    assert [process.returncode for process in several] == [0] * 3 and "".join(said).count("copying") == 2
    assert same(copied(dataset, tmp_path / "disk"), dataset) and not list((tmp_path / "disk").rglob("*.torn"))
