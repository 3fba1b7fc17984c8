"""What is written for people: tables, the report, cards and labels."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.leaderboard import publish
from harness.check import check
from harness.review.evidence import Evidence
from harness.review.written import content, report_difference, wrong_on_card
from jobs.experiment.cell_config import cell_config
from jobs.experiment.run_folder import CARD, RunFolder
from jobs.worker.model_card import model_card, results, table
from tests.support.cell_folders import record_of
from tests.support.cells import make_cell
from tests.support.records import fake_curve, fake_metrics, fake_record, fake_run, fake_verification


def swap(path: Path, before: str, after: str) -> None:
    """Replaces a text that is there."""
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A report, and the same of a folder that somebody moved, verified, and robbed of its stages."""
    records = [fake_record(97.0 + seed, seed=seed) for seed in range(3)]
    run = fake_run(tmp_path_factory.mktemp("written") / "a", records)
    fake_curve(run, records[0].stages[0], 3)
    moved = fake_run(run.with_name("b"), records)
    path = moved / "verified" / records[0].id / "1.json"
    path.parent.mkdir(parents=True)
    path.write_text(fake_verification(records[0], "pass").model_dump_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plotly.offline.get_plotlyjs", lambda: "five megabytes that no test reads")
        for folder in (run, moved):
            publish([folder], folder)
    return ((run / "report.html").read_text(encoding="utf-8"), (moved / "report.html").read_text(encoding="utf-8"))


def test_a_report_says_the_same_after_the_folder_was_moved_verified_and_handed_on_without_stages(pages: tuple[str, str]) -> None:
    assert pages[0] != pages[1] and content(pages[0]) == content(pages[1])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda page: page.replace(">98.00", ">99.00", 1), "its text is"),
        (lambda page: page.replace('"y":[98.0]', '"y":[99.0]', 1), "its numbers are"),
        (lambda page: page.replace('"rows":', '"rows":7,"was":', 1), "its numbers are"),
        (lambda page: page[: len(page) // 2], "its text is"),
    ],
    ids=["text", "figure", "data", "torn"],
)
def test_a_report_that_was_edited_is_found(pages: tuple[str, str], tmp_path: Path, change: Callable[[str], str], what: str) -> None:
    first, second = tmp_path / "kept.html", tmp_path / "written.html"
    second.write_text(pages[1], encoding="utf-8")
    first.write_text(change(pages[0]), encoding="utf-8")
    assert change(pages[0]) != pages[0]
    assert what in report_difference(first, second)


def test_a_card_with_another_accuracy_is_found_and_one_with_more_words_is_not(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [fake_record(97.0)])
    (cell,) = Evidence(runs=[RunFolder(run)]).measured
    card = cell.path.with_name(CARD)
    assert wrong_on_card(cell) == ""
    card.write_text("---\nlicense: mit\n---\n# Mine\n\n" + table(results(fake_metrics(97.0))) + "\n\n| more | words |\n", encoding="utf-8")
    assert wrong_on_card(cell) == ""
    swap(card, "97.00%", "99.00%")
    assert wrong_on_card(cell) == "Top-1, test 99.00%, and the record 97.00%"


@pytest.mark.parametrize(
    ("before", "after", "wrong"),
    [
        ("      value: 90.0\n", "      value: 99.0\n", "Top-1 accuracy 99.0, and the record 90.0"),
        ("right on 90.00% of", "right on 99.00% of", "It is right on 99.00% of 1,360, and the record 90.00% of 1,360"),
        ("of the 1,360 test images", "of the 9,999 test images", "It is right on 90.00% of 9,999, and the record 90.00% of 1,360"),
        ("| Top-1, test | 90.00% |", "| Top-1, test | 99.00% |", "Top-1, test 99.00%, and the record 90.00%"),
        ("      split: test\n", "      split: train\n", ""),  # results that its owner adds are on other images
        ("model-index:\n", "model-index: no list\nwas:\n", ""),
        ("library_name:", "library_name: [", ""),
        ("library_name:", "day: 2026-99-99\nlibrary_name:", ""),  # PyYAML's ValueError
        pytest.param("library_name:", f"deep: {'[' * 9999}\nlibrary_name:", "", id="nested too deeply for PyYAML"),
        ("      name: Top-1 accuracy\n", "      name: [Top-1 accuracy]\n", ""),
        ("      split: test\n", "", ""),
    ],
)
def test_every_accuracy_of_a_card_is_held_against_the_record(tmp_path: Path, before: str, after: str, wrong: str) -> None:
    made_up = make_cell()
    record = record_of(made_up, "e" * 64, test_samples=1360)
    (cell,) = Evidence(runs=[RunFolder(fake_run(tmp_path, [record]))]).measured
    card = cell.path.with_name(CARD)
    card.write_text(model_card(record, cell_config(made_up, record, Path("/nowhere"), classes=1000, names=None)), encoding="utf-8")
    assert wrong_on_card(cell) == ""
    swap(card, before, after)
    assert wrong_on_card(cell) == wrong


def test_labels_that_came_later_are_noted(fake_labels: Path) -> None:
    notes = [finding for finding in check(Evidence(runs=[RunFolder(fake_labels)]), rules=[15]) if finding.weight == "note"]
    assert "tables call 1 cell otherwise than when they ran: 'vim_micro  ours' ran as 'vim_micro  dense'" in [note.text for note in notes]


@pytest.fixture
def fake_labels(tmp_path: Path) -> Path:
    """A run folder whose plan calls one of two cells otherwise than its record."""
    records = [fake_record(97.0, seed=seed) for seed in range(2)]
    run = fake_run(tmp_path, records)
    titles = {record.id: [f"vim_micro  dense  seed {record.seed}", record.stages] for record in records}
    specs = {record.id: json.loads(json.dumps(record.spec)) for record in records}
    specs[records[1].id]["pruning"]["label"] = "ours"
    (run / "plan.json").write_text(json.dumps({"grid": "fake", "cells": specs}))
    (run / "index.json").write_text(json.dumps({"grid": "fake", "file": "grid.yaml", "cluster": "local", "stages": {}, "cells": titles}))
    return run


@pytest.mark.slow
def test_edited_tables_and_an_edited_report_of_a_real_run_are_found(honest: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(honest, tmp_path / "honest"))
    for name in ("leaderboard.csv", "leaderboard.md", "leaderboard.tex", "report.html"):
        swap(run / name, "magnitude", "ours")
    shutil.rmtree(run / "stages")
    found = {finding.where for finding in check(Evidence(runs=[RunFolder(run)]), rules=[15]) if finding.weight == "fault"}
    assert found == {f"honest/{name}" for name in ("leaderboard.csv", "leaderboard.md", "leaderboard.tex", "report.html")}
