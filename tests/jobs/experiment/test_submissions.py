"""Which job runs which stages, as launches wrote it down."""

import socket
from pathlib import Path

import pytest

from jobs.experiment.ids import JobId, StageId
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.submissions import Submission, arrays, local_job, read_submitted, submissions, write_submitted

A, B = StageId("aaa"), StageId("bbb")


def folder(tmp_path: Path, number: int) -> Path:
    """The folder of one launch's jobs."""
    path = tmp_path / "jobs" / str(number)
    path.mkdir(parents=True)
    return path


def test_jobs_are_read_as_they_were_written_and_the_latest_launch_comes_last(tmp_path: Path) -> None:
    first, last = folder(tmp_path, 9), folder(tmp_path, 10)
    write_submitted(last, {JobId(18): [A]})
    write_submitted(first, {JobId(17, task=0): [A, B], JobId(17, task=1): [B]})
    folder(tmp_path, 11)  # of a launch that was killed before it submitted anything
    assert submissions(RunFolder(tmp_path)) == [
        Submission(job=JobId(17, task=0), stages=(A, B), folder=first),
        Submission(job=JobId(17, task=1), stages=(B,), folder=first),
        Submission(job=JobId(18), stages=(A,), folder=last),
    ]


def test_without_a_launch_there_are_no_jobs(tmp_path: Path) -> None:
    assert submissions(RunFolder(tmp_path)) == [] and arrays(RunFolder(tmp_path)) == []


def test_an_array_is_named_once_and_local_jobs_are_no_arrays(tmp_path: Path) -> None:
    write_submitted(folder(tmp_path, 1), {JobId(17, task=0): [A], JobId(17, task=1): [B], JobId(18): [A]})
    write_submitted(folder(tmp_path, 2), {local_job(4711): [B]})
    assert arrays(RunFolder(tmp_path)) == [JobId(17), JobId(18)]


def test_a_process_of_this_machine_is_a_local_job() -> None:
    assert local_job("4711") == JobId(4711, host=socket.gethostname()) and local_job(4711).local


def test_logs_are_those_of_the_job_alone_by_rank(tmp_path: Path) -> None:
    names = ("17_1_0_log.out", "17_1_10_log.out", "17_1_2_log.out", "17_11_0_log.out", "17_1_0_log.err", "17_1_submitted.pkl")
    for name in names:
        (tmp_path / name).touch()
    task = Submission(job=JobId(17, task=1), stages=(A,), folder=tmp_path)
    assert [path.name for path in task.logs()] == ["17_1_0_log.out", "17_1_2_log.out", "17_1_10_log.out"]
    (tmp_path / "4711_0_log.out").touch()
    assert [path.name for path in Submission(job=local_job(4711), stages=(A,), folder=tmp_path).logs()] == ["4711_0_log.out"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"no job": []}', b'{"17": 3}'])
def test_a_list_of_jobs_that_cannot_be_read_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stages.json").write_bytes(content)
    assert read_submitted(tmp_path) == []
