"""Labels of rows, from plans and records."""

import json
from pathlib import Path

import pytest

from analysis.csv_files import read_csv
from analysis.labels import Labels, knobs_of, labels_of_row, labels_of_spec, method_name
from analysis.leaderboard import publish
from jobs.experiment.index import CellEntry, RunIndex, write_index
from jobs.experiment.records import Record
from jobs.experiment.run_folder import RunFolder
from tests.support.records import fake_record, fake_run, fake_spec


def plan(run: Path, records: list[Record], pruning: str | None, model: str = "vim_micro", title: str = "") -> None:
    """Writes a plan that has these cells under other labels; `title`: the method's name in the index."""
    cells = {record.id: {"stages": record.stages, **record.spec} for record in records}
    cells = {
        cell: spec | {"pruning": spec["pruning"] | {"label": pruning}, "model": spec["model"] | {"label": model}} for cell, spec in cells.items()
    }
    (run / "plan.json").write_text(json.dumps({"grid": "fake", "cells": cells}))
    entries = {record.id: CellEntry(title=f"{model}  {pruning or title}  seed {record.seed}", stages=()) for record in records}
    write_index(RunFolder(run), RunIndex(grid="fake", file="grid.yaml", cluster="local", stages={}, cells=entries))


def labels(run: Path, table: str = "leaderboard") -> list[tuple[str, str]]:
    """The labels in a table."""
    publish([run], run)
    return [(line["model"], line["pruning"]) for line in read_csv(run / f"{table}.csv")]


def test_a_label_that_changed_after_the_run_stands_in_every_table(tmp_path: Path) -> None:
    records = [fake_record(top1, seed=seed, pruning="mispelt", spec=fake_spec("dense", seed)) for seed, top1 in enumerate((97.0, None))]
    run = fake_run(tmp_path, records)
    before = {path: path.read_bytes() for path in run.glob("cells/*/record.json")}
    plan(run, records, "right", model="vim")
    assert labels(run) == [("vim", "right")] and labels(run, "cells") == [("vim", "right")] * 2
    for name in ("coverage.csv", "pareto.csv", "leaderboard.md", "leaderboard.tex", "report.html"):
        text = (run / name).read_text()
        assert "right" in text and "mispelt" not in text
    assert {path: path.read_bytes() for path in before} == before


def test_cells_of_a_row_show_the_label_of_the_plan_also_where_it_has_only_some_of_them(tmp_path: Path) -> None:
    records = [fake_record(97.0, seed=seed, pruning="mispelt" if seed else "right") for seed in range(3)]
    specs = records[0].spec
    records = [record.model_copy(update={"spec": specs | {"seed": record.seed}}) for record in records]
    run = fake_run(tmp_path, records)
    plan(run, records[2:], "new")
    assert labels(run) == [("vim_micro", "new")] and set(labels(run, "cells")) == {("vim_micro", "new")}


def test_a_row_outside_every_plan_has_the_label_of_its_latest_record() -> None:
    old, new = fake_record(97.0, pruning="old"), fake_record(96.0, pruning="new", seed=1).model_copy(update={"finished": "2026-02-01T00:00:00+00:00"})
    assert labels_of_row([old, new], {}, None) == ("vim_micro", "new") == labels_of_row([new, old], {}, None)


def test_a_label_that_was_taken_away_gives_way_to_the_name_of_the_method(tmp_path: Path) -> None:
    records = [fake_record(97.0, pruning="mispelt")]
    run = fake_run(tmp_path, records)
    plan(run, records, None, title="magnitude(0.9)")
    assert labels(run) == [("vim_micro", "magnitude(0.9)")]


def test_of_several_runs_the_first_one_names_a_cell(tmp_path: Path) -> None:
    records = [fake_record(97.0, pruning="mispelt")]
    runs = [fake_run(tmp_path / name, records) for name in "ab"]
    for run in runs:
        plan(run, records, f"label {run.name}")
    publish(runs, tmp_path)
    assert [row["pruning"] for row in read_csv(tmp_path / "leaderboard.csv")] == ["label a"]


@pytest.mark.parametrize("title", ["", "another  magnitude(0.9)  seed 3", "m  magnitude(0.9)  seed 4", "m  seed 3", "m    seed 3"])
def test_a_title_of_another_form_names_nothing(title: str) -> None:
    spec = {"model": {"label": "m"}, "pruning": {"method": "magnitude", "label": None}, "seed": 3}
    assert labels_of_spec(spec, title) == Labels(model="m", pruning=None)


def test_labels_of_old_records_are_shown_on_one_line() -> None:
    assert labels_of_row([fake_record(97.0, model="a\nb", pruning="\x1b[2J")], {}, None) == (r"a\nb", r"\x1b[2J")


def test_a_chain_is_called_by_its_methods_and_its_knobs_by_their_link() -> None:
    links = [{"method": "structured", "knobs": {"ratio": 0.3}}, {"method": "wanda", "knobs": {"sparsity": 0.5}}]
    chain = {"method": "chain", "label": None, "knobs": {"methods": links, "split": []}}
    assert method_name(chain) == "structured + wanda" and method_name({"method": "wanda", "knobs": {}}) == "wanda"
    assert knobs_of(chain) == {"1.structured.ratio": 0.3, "2.wanda.sparsity": 0.5, "split": []}
    assert knobs_of({"method": "wanda", "knobs": {"sparsity": 0.5}}) == {"sparsity": 0.5} and knobs_of({"method": "dense"}) == {}
