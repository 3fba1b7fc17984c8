"""Seeds, folders and files of a verification. (Its runs are tested in tests/harness/test_verify.py.)"""

from pathlib import Path

import pytest

from harness.review.again import NotRunError
from harness.review.verified_runs import Subject, keep, moment, moved, runs_of, seeds_to_run, tidy, unfinished
from jobs.experiment.files import write_json
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.verification import verifications, verified_dir
from jobs.worker.code_copy import code_id, digest_of
from tests.support.records import fake_environment, fake_record, fake_run, fake_verification


def subject(folder: Path, **environment: object) -> Subject:
    """The first of three seeds of a row, beside cells of other rows."""
    around = fake_environment(**environment)
    records = [fake_record(97.0 + seed, seed=seed, environment=around) for seed in (3, 5, 1)]
    others = [fake_record(80.0, pruning="random-0.5", environment=around), fake_record(90.0, seed=7, environment=fake_environment(threads=64))]
    run = RunFolder(fake_run(folder, [*records, *others, fake_record(None, seed=9, environment=around)]))
    return Subject(run=run, path=run.record_path(records[0].id), record=records[0])


def test_the_row_is_the_other_seeds_of_the_same_machine(tmp_path: Path) -> None:
    assert {seed: record.seed for seed, record in subject(tmp_path).row().items()} == {1: 1, 3: 3, 5: 5}


def test_a_record_that_is_done_without_numbers_is_refused(tmp_path: Path) -> None:
    whole = subject(tmp_path)
    whole.run.write_record(whole.record.model_copy(update={"metrics": None}))
    with pytest.raises(NotRunError, match="has no numbers: the record was changed"):
        whole.row()


def test_the_cells_own_seed_runs_first_then_the_recorded_ones_then_new_ones(tmp_path: Path) -> None:
    row = subject(tmp_path).row()
    assert [seeds_to_run(3, row, count) for count in (1, 2, 3, 5)] == [[3], [3, 1], [3, 1, 5], [3, 1, 5, 6, 7]]


def test_the_kept_copy_of_the_code_runs_if_it_is_what_its_name_says(tmp_path: Path) -> None:
    copy = tmp_path / "making"
    (copy / "jobs").mkdir(parents=True)
    (copy / "jobs/a.py").write_text("")
    kept = tmp_path / "run" / "code" / digest_of(copy)
    kept.parent.mkdir(parents=True)
    copy.rename(kept)
    assert subject(tmp_path / "run", code=kept.name).copy() == kept
    (kept / "jobs/a.py").write_text("import evil")
    with pytest.raises(NotRunError, match="was changed after the launch"):
        subject(tmp_path / "run", code=kept.name).copy()


@pytest.mark.parametrize("code", [None, "0" * 16, "../../..", "", code_id()])
def test_without_a_copy_or_with_a_name_that_leads_elsewhere_the_code_here_runs(tmp_path: Path, code: str | None) -> None:
    assert subject(tmp_path, code=code).copy() is None


def test_runs_of_a_copy_that_saw_other_images_are_not_judged_and_not_kept(tmp_path: Path) -> None:
    whole = subject(tmp_path / "run")
    folder = fake_run(tmp_path / "unfinished", [fake_record(90.0, seed=3, environment=fake_environment(data_sha256="e" * 64))])
    with pytest.raises(NotRunError, match="the images here are others"):
        list(runs_of(whole, [3], folder, tmp_path / "copy", print))
    assert not folder.exists()


def test_runs_of_other_code_and_with_other_threads_are_kept_apart(tmp_path: Path) -> None:
    first, second = subject(tmp_path / "a"), subject(tmp_path / "b", threads=3)
    folders = [unfinished(tmp_path, first, None), unfinished(tmp_path, second, None), unfinished(tmp_path, first, tmp_path / "copy")]
    assert len(set(folders)) == 3 and unfinished(tmp_path, first, None) == folders[0]


def test_what_is_left_is_one_file_wherever_a_kill_comes(tmp_path: Path) -> None:
    kept = fake_verification(fake_record(97.0), "pass")
    parent = verified_dir(tmp_path, kept.cell)
    folder = parent / "unfinished-abc"
    write_json(folder / "cells" / "x" / "record.json", {})
    assert moved(folder) is None and tidy(parent) == [] and folder.exists(), "its runs go on"
    write_json(folder / "verdict.json", kept.model_dump(mode="json"))  # killed before the move
    (path,) = tidy(parent)
    assert list(verifications(tmp_path)) == [kept] and path.name.startswith("20261128T190000Z-") and not folder.exists()
    write_json(folder / "verdict.json", kept.model_dump(mode="json"))  # killed between the file and the removal: the same file again
    write_json(parent / ".over.1" / "verdict.json", {})  # killed within the removal
    assert tidy(parent) == [path] and sorted(entry.name for entry in parent.iterdir()) == [path.name]
    assert keep(folder, kept) == path and moment(kept) == "20261128T190000Z"
