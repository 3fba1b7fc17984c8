"""The data sets that SLURM jobs write before the trainings of a run, as the files show them."""

from pathlib import Path

import msgspec

from harness.monitor.json_fields import read_fields
from jobs.experiment.run_folder import DATA, RunFolder

TEXTS = msgspec.json.Decoder(dict[str, str])


def data_notes(run: RunFolder) -> list[str]:
    """A line for each data set that is being written, or that could not be."""
    return [line for title, folder in texts(run.path / DATA).items() if (line := data_note(title, Path(folder)))]


def data_note(title: str, folder: Path) -> str:
    """How far a data set is; empty if it is written, or if nothing is known of it."""
    from jobs.data.writing import is_written  # few runs need it, and it is slow to import
    from jobs.worker.data_job import failure_path, images_there, job_path

    if is_written(folder):
        return ""
    if failure := texts(failure_path(folder)):
        return f"{title} could not be written: {failure.get('message')}"
    if job := texts(job_path(folder)):
        so_far = f"{images_there(folder):,} images so far"
        return f"{title}: SLURM job {job.get('job')} writes it before the trainings that wait for it, {so_far}; its logs: {job.get('logs')}"
    return ""


def texts(path: Path) -> dict[str, str]:
    """The texts in a JSON file by name; none where it is missing or torn."""
    try:
        return read_fields(path, TEXTS)
    except (OSError, ValueError):
        return {}
