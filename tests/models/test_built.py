"""A built library is the image's, where there is an image that has one."""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from models import built
from models.built import built_file

SUFFIX = EXTENSION_SUFFIXES[0]


def test_an_images_own_library_goes_before_that_of_the_machine_that_launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, image = tmp_path / "here", tmp_path / "image"
    for root in (here, image):
        (root / "models" / "ssm").mkdir(parents=True)
    monkeypatch.setattr(built, "ROOT", here)
    monkeypatch.delenv(built.IMAGE, raising=False)
    own, theirs = (root / "models" / "ssm" / f"_kernel{SUFFIX}" for root in (here, image))
    assert built_file(here / "models" / "ssm", "_kernel") is None
    own.touch()
    monkeypatch.setenv(built.IMAGE, str(image))
    assert built_file(here / "models" / "ssm", "_kernel") == own
    theirs.touch()
    assert built_file(here / "models" / "ssm", "_kernel") == theirs
    monkeypatch.delenv(built.IMAGE)
    assert built_file(here / "models" / "ssm", "_kernel") == own
