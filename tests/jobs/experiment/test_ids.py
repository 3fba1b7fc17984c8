"""Job ids are written and read back as files and SLURM have them."""

import pytest

from jobs.experiment.ids import JobId


@pytest.mark.parametrize("text", ["17", "17_3", "node1:4711", "a-host.example.org:4711"])
def test_an_id_is_read_as_it_is_written(text: str) -> None:
    assert str(JobId.parse(text)) == text


def test_an_id_says_whose_it_is() -> None:
    task, process = JobId.parse("17_3"), JobId.parse("node1:4711")
    assert (task.local, task.array, task.task, task.log_prefix) == (False, JobId(17), 3, "17_3")
    assert (process.local, process.host, process.number, process.log_prefix) == (True, "node1", 4711, "4711")


@pytest.mark.parametrize("text", ["", "seventeen", "17_", "17_[0-3]", "host:"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        JobId.parse(text)
