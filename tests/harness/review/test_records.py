"""Rules on single records: each kind of forgery is found by its own rule."""

import re
import shutil
from pathlib import Path

import pytest

from harness.check import check
from harness.grid.read import read_grid
from harness.plan.jobs import planned_cells
from harness.plan.stages import make_graph
from harness.review.evidence import Evidence, Held
from harness.review.records import merges_tokens, relations
from jobs.experiment.job import JobSpec
from jobs.experiment.records import Metrics
from jobs.experiment.run_folder import RunFolder
from tests.support.forgeries import Falsify, broken, cells, edit
from tests.support.jobs import finished
from tests.support.records import fake_record, fake_run

pytestmark = pytest.mark.slow


def tell_of_test(run: Path) -> None:
    path = next(run.glob("stages/*/metrics.jsonl"))
    path.write_text(re.sub(r"}\s*$", ', "test_top1": 91.0}\n', path.read_text()))


def rounds(run: Path) -> None:
    """A method that needs five epochs more, beside a dense network that does not."""
    pruning = {"method": "iterative_magnitude", "label": None, "knobs": {"rounds": 6, "rewind_step": 0, "rate": 0.2}}
    for cell in cells(run, "magnitude"):
        edit(cell, spec__pruning=pruning, metrics__epochs=7)


def longer(run: Path) -> None:
    for cell in cells(run, "magnitude"):
        edit(cell, metrics__epochs=7)


FORGERIES: dict[str, tuple[set[int], Falsify]] = {  # the rules that must be found broken, and how
    "a torn record": ({1, 3}, lambda run: (cells(run, "dense")[0] / "record.json").write_text('{"schema_version": 1, "id"')),
    "a field that no schema has": ({1}, lambda run: edit(cells(run, "dense")[0], metrics__luck=1)),
    "the record of another cell": ({1}, lambda run: shutil.copy(cells(run, "dense")[0] / "record.json", cells(run, "random")[0])),
    "a bad result taken out of its record": ({1}, lambda run: edit(cells(run, "magnitude")[0], metrics=None)),
    "a good cell said to have failed": ({1}, lambda run: edit(cells(run, "magnitude")[0], status="failed")),
    "another version of the schema": ({1, 3}, lambda run: edit(cells(run, "dense")[0], schema_version=2)),
    "a changed sparsity": ({2}, lambda run: edit(cells(run, "magnitude")[0], spec__pruning__knobs__sparsity=0.9)),
    "a changed seed": ({2}, lambda run: edit(cells(run, "magnitude")[0], seed=5)),
    "a removed cell": ({3}, lambda run: shutil.rmtree(cells(run, "magnitude")[1])),
    "a removed plan": ({3}, lambda run: (run / "plan.json").unlink()),
    "an accuracy that no count of images gives": ({4}, lambda run: edit(cells(run, "magnitude")[0], metrics__top1=77.7777)),
    "an accuracy above 100": ({4}, lambda run: edit(cells(run, "magnitude")[0], metrics__val_top1=101.0)),
    "fewer non-zero weights than the sparsity leaves": ({4, 7}, lambda run: edit(cells(run, "magnitude")[0], metrics__params_nonzero=10)),
    "an end before the start": ({4}, lambda run: edit(cells(run, "dense")[0], finished="2001-01-01T00:00:00+00:00")),
    "an accuracy that is no number": ({4}, lambda run: edit(cells(run, "dense")[0], metrics__top1=float("nan"))),
    "a cost that is no number": ({4}, lambda run: edit(cells(run, "dense")[0], metrics__train_cpu_h=float("nan"))),
    "no parameters before pruning": ({4}, lambda run: edit(cells(run, "dense")[0], metrics__params_dense=0)),
    "a start that is no time": ({4}, lambda run: edit(cells(run, "dense")[0], started="yesterday")),
    "a stage that knows the test set": ({9}, tell_of_test),
    "no held-out images": ({9}, lambda run: edit(cells(run, "dense")[0], spec__data__val_fraction=0.0)),
    "more epochs for one method": ({10}, longer),
    "more rounds than dense": ({10}, rounds),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_is_found_by_its_rule(run: Path, forgery: str) -> None:
    rules, falsify = FORGERIES[forgery]
    falsify(run)
    assert rules <= broken(run, rules=rules)


def test_a_cell_that_is_said_to_have_failed_beside_its_weights_is_noted(tmp_path: Path) -> None:
    run = RunFolder(fake_run(tmp_path, [fake_record(None), record := fake_record(None, seed=1)]))
    run.record_path(record.id).with_name("model.safetensors").touch()
    run.plan_path.write_text('{"cells": {}}')
    assert sorted(finding.text for finding in check(Evidence(runs=[run]), rules=[3])) == [
        "it failed (diverged), although it left weights, and is no part of a mean", "it failed (diverged), and is no part of a mean",
    ]  # fmt: skip


def test_a_record_of_another_training_protocol_is_not_called_changed(tmp_path: Path) -> None:
    """Versions up to 0.2 trained bf16 in another way: their records do not have the protocol, and their ids did not hold it."""
    (tmp_path / "grid.yaml").write_text(MERGING.replace("seeds", "recipe: {dtype: bf16}\nseeds"))
    grid = read_grid(tmp_path / "grid.yaml")
    planned = planned_cells(grid, make_graph(grid.cells))[0]
    record = finished(JobSpec(run="", grid="old", stages=(), cells=(), cluster=grid.cluster), planned)
    spec = record.spec | {"recipe": {name: value for name, value in record.spec["recipe"].items() if name != "protocol"}}
    run = RunFolder(tmp_path / "run")
    run.write_record(record.model_copy(update={"id": "0123456789ab", "spec": spec}))
    (finding,) = check(Evidence(runs=[run]), rules=[2])
    assert finding.weight == "unchecked" and "another protocol" in finding.text


MERGING = """
name: merging
models: [vim_micro]
pruning:
  - {method: magnitude, sparsity: 0.5}
  - {method: token_merging, r: 2}
  - {chain: [{method: token_merging, r: 2}, {method: magnitude, sparsity: 0.5}]}
seeds: [0]
"""


def test_a_network_whose_tokens_merge_may_cost_more_than_the_dense_one(tmp_path: Path) -> None:
    """Tokens are compared before they merge: in a tiny network that costs more than the merging saves."""
    (tmp_path / "grid.yaml").write_text(MERGING)
    grid = read_grid(tmp_path / "grid.yaml")
    planned = planned_cells(grid, make_graph(grid.cells))
    records = [finished(JobSpec(run="", grid="merging", stages=(), cells=(), cluster=grid.cluster), each) for each in planned]
    held = [Held(run=RunFolder(tmp_path), path=tmp_path, record=record) for record in records]
    assert [merges_tokens(cell) for cell in held] == [False, True, True]
    numbers = Metrics.model_construct(params=1, macs=100, macs_nonzero=60, macs_structural=110)
    order = {merges: next(holds for holds, text in relations(numbers, merges) if text.startswith("macs")) for merges in (True, False)}
    assert order[True](numbers) and not order[False](numbers)
