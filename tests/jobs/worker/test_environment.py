"""A record names the code, the packages and the machine that it comes from."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from jobs.worker import environment
from jobs.worker.environment import code_version, cpu_name, current_environment, package_versions, running_version, scan_build


def repository(folder: Path) -> Path:
    """A repository with one commit."""
    (folder / "file").write_text("first")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet"], ["add", "file"], [*identity, "commit", "--quiet", "--message=first"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


def test_the_commit_and_whether_the_code_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", repository(tmp_path))
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert code_version() == (head, False)
    (tmp_path / "file").write_text("second")
    assert code_version() == (head, True)
    (tmp_path / "file").write_text("first")
    assert code_version() == (head, False)
    (tmp_path / "my_method.py").touch()  # as README says, a method of one's own is such a file
    assert code_version() == (head, True)


def test_variables_that_name_another_repository_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
        repository(tmp_path / name)
    monkeypatch.setattr(environment, "ROOT", tmp_path / "ours")
    version = code_version()
    for variable, value in {"GIT_DIR": ".git", "GIT_WORK_TREE": "", "GIT_INDEX_FILE": ".git/index", "GIT_OBJECT_DIRECTORY": "none"}.items():
        monkeypatch.setenv(variable, str(tmp_path / "other" / value))
    (tmp_path / "other" / "new").touch()
    assert code_version() == version == (version[0], False) and version[0] is not None


def test_a_copy_within_another_repository_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = repository(tmp_path) / "vssm-bench"
    copy.mkdir()
    monkeypatch.setattr(environment, "ROOT", copy)
    assert code_version() == (None, None)


def test_a_linked_folder_is_the_repository_that_it_links_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    repository(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setattr(environment, "ROOT", tmp_path / "link")
    assert code_version()[1] is False


def test_without_git_the_version_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", repository(tmp_path))
    monkeypatch.setenv("PATH", "")
    assert code_version() == (None, None)


def test_without_a_repository_the_version_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_version() == (None, None)


def test_a_record_names_the_code_that_the_process_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", repository(tmp_path))
    running_version.cache_clear()
    version = running_version()
    assert version == code_version() and version[1] is False
    (tmp_path / "file").write_text("edited while the process runs")
    named = current_environment(ranks=1, threads=1, loader="torch", scan="cpu", data_sha256="0")
    assert (named.commit, named.dirty) == version and code_version()[1] is True
    running_version.cache_clear()


def test_versions_are_those_of_the_installed_packages() -> None:
    versions = package_versions()
    assert versions["torch"] == version("torch") and "mamba-ssm" not in versions or versions["mamba-ssm"] == version("mamba-ssm")


def test_the_machine_the_scan_that_it_runs_and_the_container_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSSM_CONTAINER", "pyxis python:3.11-slim")
    surroundings = current_environment(ranks=2, threads=3, loader="ffcv", scan="cpu", data_sha256="abc")
    assert surroundings.container == "pyxis python:3.11-slim"
    assert surroundings.cpu == cpu_name() and surroundings.cpu.endswith(")")
    assert (surroundings.ranks, surroundings.threads, surroundings.scan, surroundings.data_sha256) == (2, 3, "cpu", "abc")
    assert surroundings.loader.startswith("ffcv ") and scan_build().items() <= surroundings.versions.items()
