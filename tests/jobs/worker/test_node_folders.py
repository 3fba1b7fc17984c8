"""Nodes whose home or temporary folder cannot be written. /proc stands for such a folder: not even root writes there."""

import os
import tempfile
from pathlib import Path

import pytest

from jobs.worker import node_folders
from jobs.worker.node_folders import OF_LIBRARIES, home, use_writable_folders, writable

NOWHERE = "/proc/home"


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node where all is well: a home, no variables."""
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]})
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(node_folders, "SMALL_BYTES", 0)


def test_where_all_can_be_written_nothing_changes(tmp_path: Path) -> None:
    before = dict(os.environ)
    assert use_writable_folders(str(tmp_path / "cache")) == [] and dict(os.environ) == before


def test_without_a_home_libraries_write_beside_the_data(tmp_path: Path) -> None:
    os.environ["HOME"] = NOWHERE
    lines = use_writable_folders(str(tmp_path / "cache"))
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "cache" / "triton_cache_dir")
    assert all(writable(Path(os.environ[name])) for name in OF_LIBRARIES) and len({os.environ[name] for name in OF_LIBRARIES}) == len(OF_LIBRARIES)
    assert lines[0] == f"{NOWHERE}/.triton/cache cannot be written: TRITON_CACHE_DIR is {os.environ['TRITON_CACHE_DIR']}"
    assert use_writable_folders(str(tmp_path / "cache")) == [], "a later call leaves what is set"


def test_a_folder_that_the_profile_names_stays(tmp_path: Path) -> None:
    os.environ |= {"HOME": NOWHERE, "TRITON_CACHE_DIR": "/scratch/me/triton"}
    use_writable_folders(str(tmp_path / "cache"))
    assert os.environ["TRITON_CACHE_DIR"] == "/scratch/me/triton"


def test_where_data_can_only_be_read_too_the_nodes_own_disk_takes_all(tmp_path: Path) -> None:
    os.environ |= {"HOME": NOWHERE, "TMPDIR": str(tmp_path)}
    lines = use_writable_folders("/proc/cache")
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "vssm-bench" / "numba") and lines[-1].startswith("/proc/cache cannot be written")
    assert os.environ["TRITON_CACHE_DIR"].startswith(str(tmp_path))


@pytest.mark.parametrize("folder", ["/proc/tmp", "/nowhere/job.17"])
def test_a_temporary_folder_of_another_machine_is_dropped(tmp_path: Path, folder: str) -> None:
    os.environ["TMPDIR"] = folder
    (line,) = use_writable_folders(str(tmp_path / "cache"))
    assert line == f"TMPDIR is dropped: {folder} cannot be written on this node, or is nearly full"
    assert "TMPDIR" not in os.environ and Path(tempfile.gettempdir()).is_dir() and not Path(folder).exists(), (
        "it is not made: SLURM's epilog would not know it"
    )


def test_where_every_temporary_folder_is_full_there_is_another_beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_folders, "SMALL_BYTES", 1 << 80)
    (line,) = use_writable_folders(str(tmp_path / "cache"))
    assert line.startswith("no temporary folder of this node has room") and tempfile.gettempdir() == str(tmp_path / "cache" / "tmp")


def test_a_system_that_knows_no_home_has_none_to_write_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    assert not writable(home() / ".triton")
    assert use_writable_folders("~/.cache/vssm-bench") and Path(os.environ["NUMBA_CACHE_DIR"]).is_relative_to(tempfile.gettempdir())
