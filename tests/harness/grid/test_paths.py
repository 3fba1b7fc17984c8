"""Where the paths of a grid lead, and how files of one name are told apart."""

from pathlib import Path

import pytest

from harness.grid.paths import absolute_path, path_problem, short_names


def test_a_path_is_looked_for_beside_the_grid_then_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grids, current = tmp_path / "grids", tmp_path / "current"
    for folder in (grids, current):
        folder.mkdir()
        (folder / "both").touch()
    (current / "one").touch()
    monkeypatch.chdir(current)
    assert absolute_path("both", grids) == grids / "both"
    assert absolute_path("one", grids) == current / "one"
    assert absolute_path("neither", grids) == current / "neither"
    assert absolute_path(str(current / "both"), grids) == current / "both"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert absolute_path("~/w.pth", Path("/grids")) == tmp_path / "w.pth"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("a\0b", "must have no character U+0000"),
        ("x" * 256, "is too long for a path (256 bytes): at most 4000, and 255 between two slashes"),
        ("é" * 128, "is too long for a path (256 bytes)"),
        ("x/" * 2001, "is too long for a path (4002 bytes)"),
        ("https://example.org/w.pth", "must be the path of a file here, got the address https://example.org/w.pth: nothing is downloaded"),
        ("s3://bucket/w.pth", "must be the path of a file here, got the address s3://bucket/w.pth"),
        ("x" * 255, ""),
        ("~/a b/ü.pth", ""),
        ("../a:b", ""),
    ],
)
def test_what_no_path_can_be_is_told(path: str, problem: str) -> None:
    found = path_problem(path)
    assert (found or "").startswith(problem) and bool(found) == bool(problem)


def test_a_home_folder_that_nobody_has_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_path("~nobody-of-this-name/w.pth", Path("/grids")) == tmp_path / "~nobody-of-this-name/w.pth"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/w.pth"], ["w.pth"]),
        (["/a/w.pth", "/a/v.pth"], ["w.pth", "v.pth"]),
        (["/r/seed0/best.pth", "/r/seed1/best.pth", "/r/seed1/last.pth"], ["seed0/best.pth", "seed1/best.pth", "last.pth"]),
        (["/a/x/best.pth", "/b/x/best.pth"], ["a/x/best.pth", "b/x/best.pth"]),
        (["/best.pth", "/a/best.pth"], ["/best.pth", "a/best.pth"]),
        (["/a/my_best.pth", "/a/best.pth"], ["my_best.pth", "best.pth"]),
    ],
)
def test_files_are_named_by_the_fewest_folders_that_tell_them_apart(paths: list[str], names: list[str]) -> None:
    assert list(short_names(map(Path, paths)).values()) == names
