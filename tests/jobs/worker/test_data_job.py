"""A job that takes part in writing a data set."""

import os
from pathlib import Path

import pytest

from jobs.data.beton import DataError
from jobs.data.prepare import data_folder, ready
from jobs.experiment.specs import DataSpec
from jobs.worker.data_job import DataJob, failure_path, shards_there, write_data
from tests.support.images import write_folder


@pytest.fixture
def job(tmp_path: Path) -> DataJob:
    """One of a folder of images."""
    for part in ("train", "val"):
        write_folder(tmp_path / "images" / part, count=8)
    data = DataSpec(source="imagefolder", path=str(tmp_path / "images"), img_size=32, loader="torch")
    return DataJob(data=data, cache=str(tmp_path / "cache"), by_content=False, workers=1)


def test_the_last_job_of_an_array_leaves_the_data_ready_and_those_after_it_do_nothing(job: DataJob, capsys: pytest.CaptureFixture[str]) -> None:
    before = shards_there(job)
    write_data(job)
    assert ready(job.data, Path(job.cache)).test_samples == 16 and capsys.readouterr().out.endswith("written\n")
    write_data(job)
    assert capsys.readouterr().out == "" and before == []


def test_a_job_that_finds_the_last_shards_taken_ends_well(job: DataJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("jobs.data.writing.Writer.take", lambda *_: None)
    write_data(job)
    assert "no shard is left to take: another job writes the last ones" in capsys.readouterr().out


def test_why_data_could_not_be_written_is_kept_until_it_is(job: DataJob) -> None:
    folder = data_folder(job.data, Path(job.cache), False)
    assert folder is not None
    image = Path(job.data.path or "") / "train" / "cat" / "0.png"
    whole, status = image.read_bytes(), image.stat()
    image.write_bytes(b"x" * len(whole))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match="0.png: cannot be decoded"):
        write_data(job)
    assert "0.png: cannot be decoded" in failure_path(folder).read_text()
    image.write_bytes(whole)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    write_data(job)
    assert not failure_path(folder).exists()
