"""What a status says of data that SLURM jobs write."""

from pathlib import Path

from harness.monitor.data_sets import data_notes
from jobs.experiment.files import write_json
from jobs.experiment.run_folder import DATA
from jobs.worker.data_job import failure_path, job_path
from tests.support.runs import FakeRun


def test_a_data_set_is_shown_while_it_is_written(fake: FakeRun, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "imagefolder-1"
    assert data_notes(fake.run) == []
    write_json(fake.run.path / DATA, {"images": str(folder)})
    assert data_notes(fake.run) == [], "nothing is known of it yet"
    write_json(job_path(folder), {"job": "20", "logs": "runs/a/jobs/1"})
    for number in range(3):
        shard = folder.with_name("imagefolder-1.shards") / f"train-{number:05}.npy"
        shard.parent.mkdir(exist_ok=True)
        shard.touch()
    line = "images: SLURM job 20 writes it before the trainings that wait for it, 3,072 images so far; its logs: runs/a/jobs/1"
    assert data_notes(fake.run) == [line]
    write_json(failure_path(folder), {"message": "a.jpg: it is empty"})
    assert data_notes(fake.run) == ["images could not be written: a.jpg: it is empty"]
    folder.mkdir()
    (folder / "source.json").write_text("{}")
    assert data_notes(fake.run) == []


def test_torn_files_are_passed_over(fake: FakeRun, tmp_path: Path) -> None:
    (fake.run.path / DATA).write_text('{"images": "')
    assert data_notes(fake.run) == []
