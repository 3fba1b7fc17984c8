"""Tuned cells for real: killed in the middle of the trials and of the choice, and reproduced; one of the trials diverges."""

import json
import shutil
from pathlib import Path

import pytest

from harness.launch import main as launch
from harness.reproduce import compare
from harness.review.again import run_again
from jobs.experiment.records import Record, read_record
from jobs.experiment.run_folder import RunFolder
from jobs.train import stage as training
from jobs.worker import choice


class Killed(BaseException):
    """The end of the process, at a moment that a test chooses."""


def killed(*_: object, **__: object) -> None:
    raise Killed


def records(run: Path) -> dict[str, Record]:
    """The records of a run by the label of their pruning."""
    return {record.pruning: record for record in map(read_record, RunFolder(run).record_paths())}


def test_the_winner_is_the_trial_that_is_best_on_validation_images_by_its_own_files(tuned: Path) -> None:
    for record in records(tuned).values():
        assert record.tuning is not None and record.metrics is not None
        measured = {}
        for number, trial in enumerate(record.tuning.trials):
            result = tuned / "stages" / trial.stages[-1] / "export" / "result.json"
            if result.exists():
                measured[number] = json.loads(result.read_bytes())["val_top1"]
        assert record.tuning.chosen == min(measured, key=lambda number: (-measured[number], number))
        assert record.metrics.val_top1 == measured[record.tuning.chosen]
        assert record.stages == record.tuning.trials[record.tuning.chosen].stages


def test_a_trial_that_diverges_is_stated_and_a_method_that_is_not_touched_has_one(tuned: Path) -> None:
    trials = {label: [trial.failure for trial in record.tuning.trials] for label, record in records(tuned).items() if record.tuning}
    assert trials == {"dense": ["", "", "diverged"], "magnitude(0.5)": ["", "", "diverged"], "dense(rounds=1)": [""]}
    failed = sorted(path.parent.name for path in tuned.glob("stages/*/failure.json"))
    assert len(failed) == 2 and not any((tuned / "stages" / stage / "export").exists() for stage in failed)


def test_the_card_names_the_chosen_values(tuned: Path) -> None:
    record = records(tuned)["magnitude(0.5)"]
    card = (tuned / "cells" / record.id / "README.md").read_text()
    assert record.tuning is not None and record.tuning.chosen in (0, 1)
    rate = record.tuning.trials[record.tuning.chosen].values["finetune_lr"]
    assert f"among 3 trials: finetune_lr {rate:g}" in card and f"finetune_lr: {rate}" in card


def test_killed_between_trials_and_in_the_choice_a_cell_ends_as_undisturbed(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = records(tuned)["magnitude(0.5)"]
    trained, whole = [], training.train_stage

    def third_is_killed(*given: object, **options: object) -> object:
        trained.append(given)
        return killed() if len(trained) == 3 else whole(*given, **options)  # type: ignore[arg-type]

    for module, name, interruption in ((training, "train_stage", third_is_killed), (choice, "take_over", killed)):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(module, name, interruption)
            run_again(record, tmp_path)
    again = run_again(record, tmp_path)
    assert compare(record, again).reproduced and again.tuning is not None and record.tuning is not None
    assert again.tuning.trials == record.tuning.trials and len(list(tmp_path.glob("cells/*/record.json"))) == 1


def test_a_launch_leaves_a_done_run_alone_and_retries_no_spent_trial(tuned: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(tuned, runs / tuned.name)
    before = {path.name: path.stat().st_mtime_ns for path in (runs / tuned.name / "stages").iterdir()}
    grid = tuned.parents[1] / "grid.yaml"
    assert launch([str(grid), "--runs", str(runs), "--retry-failed"]) == 3
    assert {path.name: path.stat().st_mtime_ns for path in (runs / tuned.name / "stages").iterdir()} == before
