"""Processes that write a data set: the same bytes for any number of them, and whatever is killed."""

import hashlib
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from jobs.data import shards, writing
from jobs.data.beton import DataError
from jobs.data.prepare import data_folder, prepare
from jobs.data.writing import Progress, ignore, is_written, write_source
from jobs.experiment.specs import DataSpec
from tests.support.images import SMALL, write_folder
from tests.support.waiting import PATIENCE_S, wait_until

DATA = DataSpec(source="synthetic", samples=160, img_size=32, loader="torch")  # and 40 for tests


def bytes_of(cache: Path, data: DataSpec = DATA) -> str:
    """A digest of the files of a data set."""
    folder = data_folder(data, cache, False)
    assert folder is not None and is_written(folder) and not list(cache.glob("*.shards"))
    return hashlib.sha256((folder / "train.beton").read_bytes() + (folder / "test.beton").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bytes that one process writes, in one shard for each file."""
    cache = tmp_path_factory.mktemp("undisturbed")
    prepare(DATA, cache)
    return bytes_of(cache)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 8 images."""
    monkeypatch.setattr(shards, "SAMPLES", 8)


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_any_number_of_processes_writes_the_same_bytes_and_counts_every_image(tmp_path: Path, undisturbed: str, workers: int) -> None:
    reports: list[Progress] = []
    prepare(DATA, tmp_path, workers=workers, report=reports.append)
    assert bytes_of(tmp_path) == undisturbed
    assert reports[0].images == 0 and reports[0].total == 200 and 600_000 < reports[0].space.needed_bytes < reports[0].space.free_bytes
    assert reports[-1].assembling and [report.images for report in reports] == sorted(report.images for report in reports)
    assert max(report.here for report in reports) == 200


HELD = """
import sys, time
from pathlib import Path
from jobs.data import encoding, shards, writing
from jobs.data.prepare import prepare
from jobs.experiment.specs import DataSpec
DATA = DataSpec(source="synthetic", samples=160, img_size=32, loader="torch")
shards.SAMPLES = 8
encoded_sample = writing.encoded_sample
cache, held = Path(sys.argv[1]), Path(sys.argv[1]) / "held"
def encoded(*arguments):
    while held.exists() and len(list(cache.glob("*.shards/*.npy"))) >= int(sys.argv[3]): time.sleep(0.01)
    return encoded_sample(*arguments)
writing.encoded_sample = encoded
prepare(DATA, cache, workers=int(sys.argv[2]))
"""


def held_writer(cache: Path, workers: int, shards: int) -> "subprocess.Popen[str]":
    """A process that waits in the middle of its next shards once so many are complete, while the file `held` is in `cache`."""
    (cache / "held").touch()
    return subprocess.Popen([sys.executable, "-c", HELD, str(cache), str(workers), str(shards)], stderr=subprocess.PIPE, text=True)


def complete(cache: Path) -> set[Path]:
    """The complete shards."""
    return set(cache.glob("*.shards/*.npy"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_writer_that_is_killed_loses_one_shard_a_process_and_the_next_goes_on_to_the_same_bytes(
    tmp_path: Path, undisturbed: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for least in (2, 6):
        process = held_writer(tmp_path, workers, least)
        wait_until(lambda least=least: len(complete(tmp_path)) >= least, "complete shards")
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    before = {path: path.stat().st_mtime_ns for path in complete(tmp_path)}
    begun = set(tmp_path.glob("*.shards/*.images")) - {path.with_suffix(".images") for path in before}
    assert len(before) >= 6 and len(begun) <= max(1, workers), "workers ended with the process that forked them"
    monkeypatch.setattr(shards, "SAMPLES", 8)
    encoded: list[Progress] = []
    prepare(DATA, tmp_path, report=encoded.append)
    assert encoded[0].images >= 6 * 8 and max(report.here for report in encoded) == 200 - encoded[0].images
    assert bytes_of(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_killed_worker_is_told_and_the_rest_is_kept(tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = held_writer(tmp_path, 2, 2)
    wait_until(lambda: len(complete(tmp_path)) >= 2, "complete shards")
    (worker, *_) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    (tmp_path / "held").unlink()
    _, said = process.communicate(timeout=PATIENCE_S)
    assert "a process that wrote data was killed, perhaps for want of memory: run the same command again" in said
    monkeypatch.setattr(shards, "SAMPLES", 8)
    assert len(complete(tmp_path)) >= 2
    prepare(DATA, tmp_path)
    assert bytes_of(tmp_path) == undisturbed


@pytest.mark.slow
def test_several_at_once_share_the_shards(tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = held_writer(tmp_path, 2, 1)
    wait_until(lambda: len(complete(tmp_path)) >= 1, "a complete shard")
    monkeypatch.setattr(shards, "SAMPLES", 8)
    reports: list[Progress] = []

    def report(progress: Progress) -> None:
        reports.append(progress)
        if progress.here:
            (tmp_path / "held").unlink(missing_ok=True)

    prepare(DATA, tmp_path, report=report)
    assert process.wait(PATIENCE_S) == 0
    assert 0 < max(report.here for report in reports) <= 200 - 8
    assert bytes_of(tmp_path) == undisturbed


@pytest.mark.usefixtures("small_shards")
def test_a_writer_that_does_not_wait_leaves_the_assembling_to_the_last(tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_folder(DATA, tmp_path, False)
    assert folder is not None
    take = writing.Writer.take  # one shard is as if another process had claimed it
    monkeypatch.setattr(writing.Writer, "take", lambda self, shard, *rest: shard.samples.start == 16 or take(self, shard, *rest))
    write_source(DATA, folder, wait=False)
    assert not is_written(folder)
    monkeypatch.setattr(writing.Writer, "take", take)
    write_source(DATA, folder, wait=False)
    assert bytes_of(tmp_path) == undisturbed


def test_a_disk_that_is_too_small_is_told_before_anything_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.data.space.free_bytes", lambda folder: 1_000_000)
    with pytest.raises(DataError, match=r"about .* MB are needed for 200 images, and 1 MB are free: free space there, set cluster.cache"):
        prepare(DATA, tmp_path)
    assert not list(tmp_path.rglob("*.images")) and not list(tmp_path.rglob("*.npy"))


FULL_DISK = """
import resource, sys
from pathlib import Path
from jobs.data import shards
from jobs.data.prepare import DataError, prepare
from jobs.experiment.specs import DataSpec
DATA = DataSpec(source="synthetic", samples=160, img_size=32, loader="torch")
shards.SAMPLES = 8
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
try:
    prepare(DATA, Path(sys.argv[1]), workers=int(sys.argv[2]))
except DataError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_fills_up_meanwhile_is_named_and_the_next_writer_goes_on(
    tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), str(workers)], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout.startswith(f"{tmp_path}/synthetic-") and "File too large: free space there" in done.stdout
    monkeypatch.setattr(shards, "SAMPLES", 8)
    reports: list[Progress] = []
    prepare(DATA, tmp_path, report=reports.append)
    assert reports[0].images == 200, "the shards had room, and the file had not"
    assert bytes_of(tmp_path) == undisturbed


@pytest.mark.slow
def test_images_of_all_shards_that_cannot_be_used_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SAMPLES", 3)
    for part in ("train", "val"):
        write_folder(tmp_path / "data" / part, count=7)
        for name in ("cat/0.png", "cat/5.png", "ant/3.png"):
            (tmp_path / "data" / part / name).write_bytes(b"no image")
    data = DataSpec(source="imagefolder", path=str(tmp_path / "data"), img_size=32, loader="torch")
    said = set()
    for workers in (0, 2):
        with pytest.raises(DataError, match="6 images cannot be used, so nothing was written:\n6 cannot be decoded") as caught:
            prepare(data, tmp_path / "cache", workers=workers)
        said.add(str(caught.value))
        assert not list((tmp_path / "cache").glob("*.shards"))
    assert len(said) == 1


@pytest.mark.parametrize("moment", ["before it takes a shard", "when it has taken one", "while it writes one"])
def test_a_writer_whose_shards_another_removes_names_the_image_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """As the jobs of an array meet: the one that ends first refuses the data."""
    write_folder(tmp_path / "data" / "train", count=4)
    write_folder(tmp_path / "data" / "val", count=2)
    (tmp_path / "data" / "train" / "cat" / "0.png").write_bytes(b"no image")
    data = DataSpec(source="imagefolder", path=str(tmp_path / "data"), img_size=32, loader="torch")
    folder = data_folder(data, tmp_path / "cache", False)
    assert folder is not None
    encode, write, others, encoded = writing.encoded_sample, writing.write_shard, [True], []

    def another(*_: object) -> None:
        if others:
            others.clear()
            with monkeypatch.context() as patch, pytest.raises(DataError, match="cannot be decoded"):
                patch.setattr(writing, "claimed", lambda *_, **__: nullcontext(True))  # it had its claims before
                write_source(data, folder)

    def counted(*arguments: object) -> object:
        encoded.append(arguments)
        if moment == "while it writes one" and len(encoded) == 6:
            another()
        return encode(*arguments)

    def written_after(*arguments: object, **options: object) -> None:
        if moment == "when it has taken one":
            another()
        write(*arguments, **options)

    monkeypatch.setattr(writing, "encoded_sample", counted)
    monkeypatch.setattr(writing, "write_shard", written_after)
    with pytest.raises(DataError, match=r"cat/0\.png: cannot be decoded"):
        write_source(data, folder, wait=False, report=another if moment == "before it takes a shard" else ignore)
    assert not list(tmp_path.glob("cache/*.shards"))
    (tmp_path / "data" / "train" / "cat" / "0.png").unlink()
    written = prepare(data, tmp_path / "cache")
    assert is_written(written.train.parent)


def test_what_a_killed_writer_of_version_0_1_left_is_replaced(tmp_path: Path) -> None:
    dataset = prepare(SMALL, tmp_path)
    content = dataset.train.read_bytes()
    (dataset.train.parent / "source.json").unlink()
    dataset.train.write_bytes(content[:100])
    (dataset.train.parent / ".train.beton.left").write_bytes(b"half")
    assert prepare(SMALL, tmp_path) == dataset
    assert dataset.train.read_bytes() == content
    assert not (dataset.train.parent / ".train.beton.left").exists()
