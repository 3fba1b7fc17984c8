"""What killed processes left goes, unless somebody works there or still needs it."""

from pathlib import Path

import pytest

from jobs.cluster.claims import claimed
from jobs.experiment.files import written_aside
from jobs.experiment.run_folder import EXPORT, RunFolder
from jobs.recovery.leftovers import remove_asides, remove_leftovers

STAGE = "a" * 12


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run folder with one stage, which has a checkpoint, a half-written export and a file that a killed process was writing."""
    run = RunFolder(tmp_path / "run")
    folder = run.stage_dir(STAGE)
    (folder / "checkpoints" / "step-4").mkdir(parents=True)
    (folder / ".export").mkdir()
    with pytest.raises(FileNotFoundError), written_aside(folder / "micro_batch.json") as aside:
        aside.rename(folder / "kept")  # else it would be removed here
    (folder / "kept").rename(aside)
    return run


def entries(run: RunFolder) -> set[str]:
    """The names in the stage's folder, by their first letters."""
    return {path.name[:12] for path in run.stage_dir(STAGE).iterdir()}


def test_a_stage_that_is_done_keeps_its_export_alone(run: RunFolder) -> None:
    run.export_dir(STAGE).mkdir()
    remove_leftovers(run, [STAGE])
    assert entries(run) == {EXPORT}


def test_a_stage_that_is_not_done_keeps_its_checkpoints(run: RunFolder) -> None:
    before = entries(run)
    remove_leftovers(run, [STAGE])
    assert entries(run) == before


def test_a_stage_in_the_hands_of_a_process_is_left_alone(run: RunFolder) -> None:
    run.export_dir(STAGE).mkdir()
    before = entries(run)
    with claimed(run.stage_claim(STAGE), wait=False) as alone:
        assert alone
        remove_leftovers(run, [STAGE])
    assert entries(run) == before


def test_only_files_that_were_being_written_go(run: RunFolder) -> None:
    folder = run.stage_dir(STAGE)
    (folder / ".nfs000000000000000000000000000001").touch()
    (folder / ".hidden.json").touch()
    remove_asides(folder)
    assert {path.name for path in folder.iterdir()} == {"checkpoints", ".export", ".nfs000000000000000000000000000001", ".hidden.json"}
    remove_asides(folder / "that is not there")
