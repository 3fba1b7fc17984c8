"""Rule 17 on a real run of tuned cells, as it is and falsified."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.check import check
from harness.review.evidence import Evidence
from jobs.experiment.run_folder import RunFolder
from tests.support.forgeries import broken, cells, edit


@pytest.fixture
def run(tuned: Path, tmp_path: Path) -> Path:
    """A copy of the tuned run that may be changed."""
    return Path(shutil.copytree(tuned, tmp_path / "tuned", symlinks=True))


def magnitude(run: Path) -> Path:
    return cells(run, "magnitude")[0]


def content(cell: Path) -> dict[str, Any]:
    return dict(json.loads((cell / "record.json").read_bytes()))


def test_an_honest_tuned_run_breaks_no_rule_but_that_of_controls(tuned: Path) -> None:
    assert broken(tuned, rules=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 17]) <= {14}
    findings = check(Evidence(runs=[RunFolder(tuned)]), rules=[17])
    assert [finding.weight for finding in findings] == ["note", "note"] and "the trial of finetune_lr 1e+30 failed (diverged)" in findings[0].text


def other_trial(record: dict[str, Any]) -> int:
    """A trial that ended and was not chosen."""
    return next(n for n, trial in enumerate(record["trials"]) if trial["val_top1"] is not None and n != record["chosen"])


FORGERIES: dict[str, Callable[[Path], object]] = {
    "another trial was chosen": lambda run: edit(magnitude(run), tuning=lambda tuning: {**tuning, "chosen": other_trial(tuning)}),
    "an accuracy was raised": lambda run: edit(
        magnitude(run),
        tuning=lambda tuning: {**tuning, "chosen": 2, "trials": [*tuning["trials"][:2], {**tuning["trials"][2], "val_top1": 100.0, "failure": ""}]},
    ),
    "a trial was left out": lambda run: edit(magnitude(run), tuning=lambda tuning: {**tuning, "trials": tuning["trials"][:2]}),
    "a value was changed": lambda run: edit(
        magnitude(run), tuning=lambda tuning: {**tuning, "trials": [{**trial, "values": {"finetune_lr": 1.0}} for trial in tuning["trials"]]}
    ),
    "the trials are gone": lambda run: edit(magnitude(run), tuning=None),
    "the accuracy is that of another network": lambda run: edit(magnitude(run), metrics__val_top1=lambda value: value + 1),
    "the stages are those of another trial": lambda run: edit(magnitude(run), stages=lambda stages: stages[:1]),
    "a stage's accuracy was changed": lambda run: change_result(run),
    "a trial was tested": lambda run: evaluated_trial(run),
}


def change_result(run: Path) -> None:
    """Changes the validation accuracy in the folder of a trial that was not chosen."""
    tuning = content(magnitude(run))["tuning"]
    path = run / "stages" / tuning["trials"][other_trial(tuning)]["stages"][-1] / "export" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "val_top1": 0.5}))


def evaluated_trial(run: Path) -> None:
    """Adds a cell that ran the stages of a trial that was not chosen."""
    record = content(magnitude(run))
    other = record["tuning"]["trials"][other_trial(record["tuning"])]["stages"]
    del record["spec"]["tune"]
    folder = run / "cells" / "0123456789ab"
    shutil.copytree(magnitude(run), folder)
    (folder / "record.json").write_text(json.dumps({**record, "id": folder.name, "tuning": None, "stages": other}))


@pytest.mark.parametrize("forgery", FORGERIES)
def test_each_forgery_breaks_the_rule(run: Path, forgery: str) -> None:
    FORGERIES[forgery](run)
    assert broken(run, rules=[17]) == {17}
