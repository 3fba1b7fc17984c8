"""The recorded difference makes the running code out of its commit, and leaves the repository as it is."""

import os
import subprocess
from pathlib import Path

import pytest

from jobs.worker import code_diff as module
from jobs.worker import environment
from jobs.worker.code_diff import code_diff
from tests.jobs.worker.test_environment import repository


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which counts as the project."""
    (tmp_path / "project").mkdir()
    monkeypatch.setattr(environment, "ROOT", repository(tmp_path / "project"))
    return tmp_path / "project"


def status(project: Path) -> str:
    """What git says of the project's files."""
    return subprocess.run(["git", "-C", str(project), "status", "--porcelain"], capture_output=True, text=True, check=True).stdout


def test_changed_and_new_files_can_be_made_again(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = tmp_path / "clean"
    subprocess.run(["git", "clone", "--quiet", str(project), str(clean)], check=True)
    subprocess.run(["git", "-C", str(project), "config", "diff.noprefix", "true"], check=True)
    (project / "file").write_text("second\n")
    (project / "methods").mkdir()
    names = ["methods/my_method.py", "an empty file", "*", os.fsdecode(b"caf\xe9")]
    for name in names:
        (project / name).write_bytes(b"" if "empty" in name else b"caf\xe9 = 1\n" + bytes(name == "*"))
    (project / "link").symlink_to("file")
    before = status(project)
    (tmp_path / "diff").write_bytes(code_diff())
    assert status(project) == before
    subprocess.run(["git", "-C", str(clean), "apply", str(tmp_path / "diff")], check=True)
    assert all((clean / name).read_bytes() == (project / name).read_bytes() for name in ["file", *names])
    assert (clean / "link").readlink() == Path("file")


def test_large_files_and_repositories_of_their_own_are_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_BYTES", 100)
    (project / "weights.bin").write_bytes(bytes(101))
    (project / "small.bin").write_bytes(bytes(99))
    (project / "other").mkdir()
    repository(project / "other")
    assert code_diff().decode().splitlines()[:3] == [
        "# not tracked, and not in this difference: other/",
        "# not tracked, and not in this difference: weights.bin",
        "diff --git a/small.bin b/small.bin",
    ]


def test_of_too_much_new_text_the_names_are_kept(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "file").write_text("second\n")
    (project / "new").write_text("x" * 1000)
    monkeypatch.setattr(module, "LIMIT_BYTES", 500)
    assert code_diff().startswith(b"# not tracked, and not in this difference: new\n") and b"+second" in code_diff()
    monkeypatch.setattr(module, "LIMIT_BYTES", 10)
    assert code_diff().endswith(b"# the changes of tracked files are too large to be kept\n")


def test_files_that_git_ignores_are_no_part_of_the_code(project: Path) -> None:
    (project / ".gitignore").write_text("*.log\n.gitignore\n")
    (project / "a.log").touch()
    assert code_diff() == b""
