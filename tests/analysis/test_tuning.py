"""What a leaderboard says of tuned rows, against figures by hand."""

from pathlib import Path
from typing import Any

import pytest

from analysis.columns import COLUMNS
from analysis.exports import latex, markdown
from analysis.merge import Merged, merge
from analysis.printing import tuned_line
from analysis.report import shown_columns
from analysis.rows import Row, make_rows
from analysis.tuning import sentence
from jobs.experiment.records import Record, TrialRecord, Tuning
from tests.support.records import fake_record

SPACE = {"space": {"finetune_lr": [0.001, 0.002, 0.004]}, "budget": 3, "seed": 0}


def tuned(seed: int, accuracies: tuple[float | None, ...], chosen: int, tune: dict[str, Any] | None = None) -> Record:
    """The record of a tuned cell whose trials had these validation accuracies."""
    record = fake_record(90.0, seed=seed)
    trials = [
        TrialRecord(values={"finetune_lr": 0.001 * 2**number}, val_top1=accuracy, failure="" if accuracy else "diverged", stages=[])
        for number, accuracy in enumerate(accuracies)
    ]
    spec = {**record.spec, "tune": tune or SPACE}
    return record.model_copy(update={"spec": spec, "tuning": Tuning(trials=trials, chosen=chosen, train_s=7200.0)})


def rows(*records: Record) -> tuple[Row, ...]:
    return make_rows(Merged(records=records, planned={}, conflicts=(), skipped=()))


def values(row: Row) -> dict[str, Any]:
    return {name: COLUMNS[name].read(row) for name in ("trials", "trials_failed", "tuned", "tuning_gain", "tuning_h")}


def test_trials_choices_and_gain_are_those_of_the_seeds() -> None:
    (row,) = rows(tuned(0, (90.0, 91.0, 95.0), 2), tuned(1, (None, 80.0, 70.0), 1), tuned(2, (60.0, 60.0, 61.0), 2))
    assert values(row) == {
        "trials": 3,
        "trials_failed": 1,
        "tuned": "finetune_lr 0.004 (2 seeds); finetune_lr 0.002 (1 seed)",
        "tuning_gain": pytest.approx((4.0 + 5.0 + 1.0) / 3),
        "tuning_h": 2.0,
    }


def test_the_printed_table_says_so_too() -> None:
    (row,) = rows(tuned(0, (90.0, None, 95.0), 2))
    assert tuned_line(row) == "tuned: vim_micro, dense: trials 3, 1 failed, validation gain +2.50, finetune_lr 0.004"
    assert tuned_line(rows(fake_record(90.0))[0]) is None


def test_tables_to_paste_say_how_many_trials_there_were() -> None:
    found = rows(tuned(0, (90.0, None, 95.0), 2), tuned(1, (90.0, 80.0), 0))
    assert sentence(found) == "Tuned: each seed of a row chose among 3 trials by validation accuracy.", "most trials of a row's seeds"
    assert sentence(found) in markdown(found) and f"% {sentence(found)}\n" in latex(found)
    assert sentence(rows(fake_record(90.0))) == "" and "Tuned" not in markdown(rows(fake_record(90.0)))


def test_a_row_that_was_not_tuned_says_nothing() -> None:
    (row,) = rows(fake_record(90.0))
    assert values(row) == {"trials": None, "trials_failed": None, "tuned": "", "tuning_gain": None, "tuning_h": None}
    assert "trials" not in {shown.column for shown in shown_columns([row])}


def test_rows_are_ranked_with_rows_of_the_same_space_and_budget_alone() -> None:
    one = tuned(0, (90.0, 91.0, 95.0), 2)
    other = tuned(0, (90.0, 91.0), 1, tune={**SPACE, "budget": 2})
    found = rows(one, other, fake_record(90.0, seed=0))
    assert len(found) == 3 and len({row.key for row in found}) == 3 and {row.rank for row in found} == {1}
    assert "trials" in {shown.column for shown in shown_columns(found)}


def test_a_record_in_a_file_has_the_row_and_key_of_the_record_in_memory(tmp_path: Path) -> None:
    record = tuned(0, (90.0, None, 95.0), 2)
    path = tmp_path / "cells" / record.id / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(record.model_dump_json())
    merged = merge([tmp_path], store=tmp_path / "store")
    again = merge([tmp_path], store=tmp_path / "store")
    (there,), (stored,), (here,) = make_rows(merged), make_rows(again), rows(record)
    assert there.key == stored.key == here.key and values(there) == values(stored) == values(here)


def test_a_choice_that_is_no_trial_is_skipped_with_the_reason(tmp_path: Path) -> None:
    good, bad = tuned(0, (90.0, 91.0, 95.0), 2), tuned(1, (90.0, 91.0, 95.0), 3)
    for record in (good, bad):
        path = tmp_path / "cells" / record.id / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(record.model_dump_json())
    merged = merge([tmp_path])
    assert len(merged.records) == 1 and merged.skipped[0].reason == "trial 3 is chosen, of 3"
