"""What a launch writes to the run folder, and the records there that it warns of."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.grid.read import Grid
from harness.plan.snapshot import cells_with_new_labels, edited_plugins, refresh_labels, save_launch, warn_of_stale_records
from harness.plan.stages import make_graph
from jobs.experiment.index import read_index
from jobs.experiment.run_folder import RunFolder
from models.plugins.tables import forget_rows
from tests.support import plugins
from tests.support.grids import read
from tests.support.runs import FakeRun


def test_a_launch_leaves_its_grid_its_cells_an_index_and_the_version_of_the_code(fake: FakeRun) -> None:
    save_launch(fake.grid, fake.plan, fake.run)
    assert (fake.run.path / "grid.yaml").read_text() == fake.grid.source
    plan = json.loads((fake.run.path / "plan.json").read_text())
    assert plan["grid"] == "small" and {cell: tuple(spec["stages"]) for cell, spec in plan["cells"].items()} == fake.plan.paths
    index = read_index(fake.run)
    assert index.stages.keys() == fake.plan.stages.keys() and {cell: entry.stages for cell, entry in index.cells.items()} == fake.plan.paths
    code = json.loads((fake.run.path / "code.json").read_text())
    assert code.keys() == {"commit", "dirty", "code"} and (fake.run.path / "code.diff").exists() == bool(code["dirty"])


def relabelled(fake: FakeRun, label: str | None, cells: slice = slice(None)) -> Grid:
    """The grid, or some of its cells, under another label."""
    return replace(fake.grid, cells=tuple(replace(cell, label=label) for cell in fake.grid.cells[cells]))


def test_no_label_is_new_to_the_grid_that_was_launched(fake: FakeRun) -> None:
    save_launch(fake.grid, fake.plan, fake.run)
    assert cells_with_new_labels(fake.grid, fake.plan, fake.run) == frozenset()


def test_labels_of_the_model_and_of_the_pruning_are_taken_over(fake: FakeRun) -> None:
    save_launch(fake.grid, fake.plan, fake.run)
    cells = tuple(replace(cell, label="new", model=replace(cell.model, label="renamed")) for cell in fake.grid.cells)
    grid = replace(fake.grid, cells=cells)
    assert cells_with_new_labels(grid, fake.plan, fake.run) == {cell.id for cell in cells}
    refresh_labels(grid, fake.plan, fake.run)
    specs = json.loads((fake.run.path / "plan.json").read_text())["cells"].values()
    assert {(spec["model"]["label"], spec["pruning"]["label"]) for spec in specs} == {("renamed", "new")}
    assert all(entry.title.startswith("renamed  new  seed ") for entry in read_index(fake.run).cells.values())
    assert cells_with_new_labels(grid, fake.plan, fake.run) == frozenset()


def test_cells_that_are_not_in_the_grid_stay_in_the_plan(fake: FakeRun) -> None:
    save_launch(fake.grid, fake.plan, fake.run)
    first = fake.grid.cells[0].id
    refresh_labels(relabelled(fake, "new", slice(1)), fake.plan, fake.run)
    specs = json.loads((fake.run.path / "plan.json").read_text())["cells"]
    assert list(specs) == [cell.id for cell in fake.grid.cells] and read_index(fake.run).cells.keys() == specs.keys()
    assert [cell for cell, spec in specs.items() if spec["pruning"]["label"] == "new"] == [first]
    assert read_index(fake.run).stages.keys() == fake.plan.stages.keys()


@pytest.mark.parametrize("name", ["plan.json", "index.json"])
def test_a_plan_that_cannot_be_read_is_written_anew(fake: FakeRun, name: str) -> None:
    save_launch(fake.grid, fake.plan, fake.run)
    (fake.run.path / name).write_text("{")
    assert cells_with_new_labels(fake.grid, fake.plan, fake.run) == {cell.id for cell in fake.grid.cells}
    refresh_labels(fake.grid, fake.plan, fake.run)
    assert cells_with_new_labels(fake.grid, fake.plan, fake.run) == frozenset()


def test_the_difference_of_a_previous_launch_does_not_stay(fake: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.snapshot.code_diff", lambda: b"caf\xe9")
    for dirty, kept in ((True, True), (False, False), (True, True), (None, False)):
        monkeypatch.setattr("harness.plan.snapshot.code_version", lambda dirty=dirty: ("abc", dirty))
        save_launch(fake.grid, fake.plan, fake.run)
        assert (fake.run.path / "code.diff").exists() == kept


def test_records_of_this_grid_and_its_defaults_are_no_reason_to_warn(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    fake.record(fake.paths[0])
    warn_of_stale_records(fake.run, fake.paths)
    assert capsys.readouterr().err == ""


def test_cells_that_the_grid_no_longer_has_are_counted(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    for planned in fake.paths[:2]:
        fake.record(planned)
    warn_of_stale_records(fake.run, fake.paths[1:])
    assert "also holds 1 cell not in this grid, from a previous grid named small" in capsys.readouterr().err
    warn_of_stale_records(fake.run, fake.paths[1:], [fake.paths[0].cell])  # a budget leaves the first one out
    assert capsys.readouterr().err == ""


def test_a_cell_that_was_run_under_other_defaults_is_named_with_what_to_do(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    planned = fake.paths[0]
    other = replace(planned.cell, recipe=replace(planned.cell.recipe, label_smoothing=0.0))  # its id stays, as if 0.0 had been the default
    fake.record(replace(planned, cell=other))
    warn_of_stale_records(fake.run, fake.paths)
    message = capsys.readouterr().err
    assert f"cell {planned.cell.id} was run under other default settings; to run it again, remove" in message
    assert str(Path("cells") / planned.cell.id / "record.json") in message


def test_records_whose_ids_hold_the_path_of_a_pretrained_file_are_counted_in_a_line(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = (
        replace(planned, cell=replace(planned.cell, model=replace(planned.cell.model, options={"pretrained": "w.pth"}, pretrained_sha256=digest)))
        for planned, digest in zip(fake.paths[:2], (None, "1" * 64), strict=True)
    )
    fake.record(old)
    warn_of_stale_records(fake.run, [new])
    assert "has 1 cell with pretrained weights under ids of version 0.1" in capsys.readouterr().err
    warn_of_stale_records(fake.run, fake.paths[1:])  # a grid without pretrained files
    assert "pretrained" not in capsys.readouterr().err


def test_a_record_that_cannot_be_read_is_named_and_the_others_are_looked_at(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    torn, other = fake.paths[:2]
    fake.record(torn)
    fake.run.record_path(torn.cell.id).write_text('{"id": ')
    fake.record(replace(other, cell=replace(other.cell, recipe=replace(other.cell.recipe, label_smoothing=0.0))))
    warn_of_stale_records(fake.run, fake.paths)
    first, second = capsys.readouterr().err.splitlines()
    assert f"cell {torn.cell.id}: {fake.run.record_path(torn.cell.id)} is not a record" in first and "remove it to run its part again" in first
    assert f"cell {other.cell.id} was run under other default settings" in second


def test_an_edited_plug_in_is_told_with_the_number_of_its_new_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plugins.written(tmp_path, plugins.MODEL + plugins.METHOD + plugins.SOURCE)
    text = plugins.GRID.replace("models: [", "models: [vim_micro, ").replace("data: {source: grey}\n", "")
    run = RunFolder(tmp_path / "run")
    grid = read(text)
    assert edited_plugins(grid, run) == []
    save_launch(grid, make_graph(grid.cells), run)
    (copy,) = run.plugins_dir.iterdir()
    assert edited_plugins(read(text), run) == []
    plugins.written(tmp_path, plugins.MODEL + plugins.METHOD + plugins.SOURCE + "# edited\n")
    edited = read(text)
    assert edited_plugins(edited, run) == [
        "plugin.py: note: it has changed since the previous launch, so its 3 cells have new ids; records of its old content stay"
    ]
    assert len({cell.id for cell in grid.cells} & {cell.id for cell in edited.cells}) == 1, "dense vim_micro"
    save_launch(edited, make_graph(edited.cells), run)
    assert edited_plugins(edited, run) == [] and len(list(run.plugins_dir.iterdir())) == 2 and copy.exists(), "jobs may still use the old copy"
    forget_rows()
