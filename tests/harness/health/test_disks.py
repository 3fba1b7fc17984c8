"""File systems, and some that do not do what they should."""

import os
import re
import time
from pathlib import Path

import pytest

from harness.health import disks
from harness.health.finding import Finding
from tests.support.waiting import PATIENCE_S


def looked_at(folder: Path, shared: bool = False) -> list[Finding]:
    return list(disks.disk("runs", folder, shared=shared))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is written, and nothing is slow or small."""
    monkeypatch.setattr(disks, "FILES", 2)
    monkeypatch.setattr(disks, "LARGE", 1 << 20)
    monkeypatch.setattr(disks, "SLOW_FILES", 0.0)
    monkeypatch.setattr(disks, "SLOW_MB", 0.0)
    monkeypatch.setattr(disks, "LITTLE", 1)


def test_a_folder_that_does_all_is_one_line_and_left_as_it_was(tmp_path: Path) -> None:
    (finding,) = looked_at(tmp_path / "new")
    assert finding.state == "ok" and "files/s" in finding.text and not list((tmp_path / "new").iterdir())


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (finding,) = looked_at(tmp_path / "file" / "runs")
    assert finding.state == "error" and "cannot be written" in finding.text


def test_locks_that_do_not_hold_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "TRY_LOCK", "")  # another process believes that it has the lock
    finding = looked_at(tmp_path)[0]
    assert finding.state == "error" and "two processes can lock one file" in finding.text


def test_renames_that_do_not_hold_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", lambda aside, target: target)
    assert "does not take its place" in looked_at(tmp_path)[0].text


@pytest.mark.parametrize("skew", [-1_000_000, 1_000_000])
def test_a_clock_that_differs_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: int) -> None:
    now = time.time
    monkeypatch.setattr(disks.time, "time", lambda: now() - skew)
    warned = next(finding for finding in looked_at(tmp_path) if finding.state == "warning")
    told = re.search(r"differs from this machine's by (-?[\d.]+)", warned.text)
    assert told and abs(float(told[1]) - skew) < PATIENCE_S, warned.text


def test_slow_and_full_file_systems_are_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "SLOW_MB", 1e9)
    assert looked_at(tmp_path)[0].remedy.startswith("checkpoints will be slow")
    monkeypatch.setattr(disks, "LITTLE", 1 << 60)
    assert looked_at(tmp_path)[0].remedy.startswith("free space")


def test_a_folder_that_nodes_cannot_see_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "file_system", lambda folder: "tmpfs")
    assert [finding.state for finding in looked_at(tmp_path, shared=True)] == ["ok", "warning"]
    assert [finding.state for finding in looked_at(tmp_path)] == ["ok"]


def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount() -> None:
    assert disks.file_system(Path("/proc/self")) == "proc"


def test_the_scratch_folder_is_that_of_the_first_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", "/nowhere")
    (finding,) = disks.scratch()
    assert finding.state == "ok" and f"$SLURM_TMPDIR {tmp_path}" in finding.text
    monkeypatch.delenv("SLURM_TMPDIR")
    (finding,) = disks.scratch()
    assert finding.state == "error" and "$TMPDIR /nowhere" in finding.text
    assert os.access(tmp_path, os.W_OK)


def test_a_home_that_cannot_be_written_is_a_warning_with_the_folder_that_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [finding.state for finding in disks.home(tmp_path / "cache")] == ["ok"]
    monkeypatch.setenv("HOME", "/proc/home")
    (finding,) = disks.home(tmp_path / "cache")
    assert finding.state == "warning" and f"compile goes to {tmp_path / 'cache'}" in finding.text
    (finding,) = disks.home(Path("/proc/cache"))
    assert finding.text.endswith("goes to the temporary folder")


def test_a_node_sees_the_cache_of_the_login_node_or_says_that_it_is_another_folder(tmp_path: Path) -> None:
    shared, other = tmp_path / "shared", tmp_path / "of another machine"
    shared.mkdir()
    with disks.marked(shared, ".doctor-1") as written:
        assert written
        assert [finding.state for finding in disks.same_folder(shared, ".doctor-1")] == ["ok"]
        (finding,) = disks.same_folder(other, ".doctor-1")
        assert finding.state == "error" and "jobs would find no data" in finding.text
    with disks.marked(shared / "not" / "there", ".doctor-1"):
        assert [finding.state for finding in disks.same_folder(shared / "not" / "there", ".doctor-1")] == ["ok"]
    assert not list(shared.iterdir())
    with disks.marked(Path("/proc"), ".doctor-1") as written:
        assert not written
