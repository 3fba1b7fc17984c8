"""A copy of the honest run, which the tests falsify."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    """A copy of the honest run (tests/support/honest_run.py) that may be changed."""
    shutil.copytree(honest, tmp_path / "honest")
    return tmp_path / "honest"
