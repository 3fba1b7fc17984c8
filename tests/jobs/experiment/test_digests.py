"""The memory of digests on disk."""

import os
from pathlib import Path

import pytest

from jobs.experiment.digests import memory_file, remember_sha256, remembered_sha256

FILE = Path("/data/train.beton")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that knows one file."""
    remember_sha256(FILE, 5, 7, tmp_path, "abc")
    return tmp_path


def test_a_digest_is_known_for_this_path_size_and_time_alone(cache: Path) -> None:
    assert remembered_sha256(FILE, 5, 7, cache) == "abc"
    others = [(FILE, 6, 7), (FILE, 5, 8), (Path("/data/test.beton"), 5, 7)]
    assert [remembered_sha256(*state, cache) for state in others] == [None] * 3


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"sha256": "abc"', b"\xff", b'{"path": "/data/train.beton", "size": 5, "mtime_ns": 7, "sha256": 3}']
)
def test_a_damaged_memory_is_none(cache: Path, content: bytes) -> None:
    memory_file(FILE, cache).write_bytes(content)
    assert remembered_sha256(FILE, 5, 7, cache) is None


def test_a_name_of_any_bytes_is_remembered(cache: Path) -> None:
    path = Path(os.fsdecode(b"/data/\xff.pth"))
    remember_sha256(path, 1, 1, cache, "def")
    assert remembered_sha256(path, 1, 1, cache) == "def"
