"""The attempt at a stage that stage.json describes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.experiment.attempt import Attempt, read_attempt, write_attempt
from jobs.experiment.ids import JobId

LOCAL = Attempt(started="2026-01-01T00:00:00+00:00", host="node1", pid=4711)
SLURM = replace(LOCAL, job=JobId(17, task=3), nodes="node[1-2]", restarts=2)
FIXTURE = Path(__file__).parents[2] / "fixtures" / "run_of_0_1" / "small" / "stages" / "ee516d283a22"


def test_an_attempt_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_attempt(tmp_path) is None
    for attempt in (LOCAL, SLURM):
        write_attempt(tmp_path, attempt, {"name": "train", "epochs": 2})
        assert read_attempt(tmp_path) == attempt
    assert SLURM.name == "17_3-2"


def test_people_who_read_the_file_see_the_stage_and_slurms_own_id(tmp_path: Path) -> None:
    write_attempt(tmp_path, SLURM, {"name": "train"})
    content = json.loads((tmp_path / "stage.json").read_text())
    assert (content["name"], content["job"], content["nodes"], content["restarts"]) == ("train", "17_3", "node[1-2]", 2)
    write_attempt(tmp_path, LOCAL, {})
    assert "job" not in json.loads((tmp_path / "stage.json").read_text())


def test_an_attempt_of_version_0_1_is_read() -> None:
    assert read_attempt(FIXTURE) == Attempt(started="2026-11-25T09:21:35+00:00", host="vm", pid=5438)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"started": "now", "job": "no job"}'])
def test_an_attempt_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stage.json").write_bytes(content)
    assert read_attempt(tmp_path) is None


def test_an_attempt_on_a_host_of_foreign_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "stage.json").write_bytes(b'{"started": "now", "host": "b\xfcro", "pid": 3}')
    attempt = read_attempt(tmp_path)
    assert attempt is not None and attempt.pid == 3
