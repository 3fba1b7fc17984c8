"""Smaller micro-batches beside a stage."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.grid.read import read_grid
from harness.launch import OK
from harness.launch import main as launch
from harness.plan.stages import make_graph
from harness.reproduce import REPRODUCED
from harness.reproduce import main as reproduce
from jobs.experiment.records import read_record
from jobs.experiment.specs import RecipeSpec, StageSpec
from jobs.parallel.engine import batching
from jobs.recovery.micro_batch import (
    half_micro_batch,
    halve_micro_batch,
    micro_batch_note,
    recipe_micro_batch,
    store_micro_batch,
    stored_micro_batch,
    stored_reason,
    with_stored_micro_batch,
)
from tests.support.runs import fake_run

ONE_CELL = """
name: one
data: {source: synthetic, samples: 128}
recipe: {epochs: 1, finetune_epochs: 1, batch_size: 64}
models: [{name: vim_micro, depth: 1, dim: 32}]
pruning: [dense]
seeds: [0]
cluster: {kind: debug, profile_s: 0.001, profile_batch: 2}
"""


def spec_of(tmp_path: Path, **recipe: object) -> StageSpec:
    """A real stage, with another recipe."""
    spec = next(iter(fake_run(tmp_path).plan.stages.values()))
    return replace(spec, recipe=replace(spec.recipe, **recipe))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "world", "chain"), [(64, 1, [64, 32, 16, 8, 4, 2, 1]), (48, 1, [48, 24, 12, 6, 3, 1]), (60, 2, [30, 15, 6, 3, 1]), (7, 1, [7, 1])]
)
def test_halving_keeps_the_global_batch_down_to_one_image(batch: int, world: int, chain: list[int]) -> None:
    recipe, found = RecipeSpec(batch_size=batch), []
    micro: int | None = recipe_micro_batch(recipe, world)
    while micro is not None:
        found.append(micro)
        made = batching(replace(recipe, micro_batch_size=micro), world)
        assert made.micro * made.accumulation * world == batch
        micro = half_micro_batch(recipe, world, micro)
    assert found == chain


def test_a_stage_that_ran_out_of_memory_keeps_its_id_and_batch(tmp_path: Path) -> None:
    spec, folder = spec_of(tmp_path, batch_size=64), tmp_path / "stage"
    assert with_stored_micro_batch(spec, folder, 1) is spec
    assert halve_micro_batch(spec, folder, 1, "no memory") == 32
    again = with_stored_micro_batch(spec, folder, 1)
    assert (again.id, again.recipe.batch_size, again.recipe.micro_batch_size) == (spec.id, 64, 32)
    assert halve_micro_batch(again, folder, 1, "no memory") == 16


def test_ranks_that_run_out_together_halve_once(tmp_path: Path) -> None:
    spec, folder = spec_of(tmp_path, batch_size=64), tmp_path / "stage"
    as_run = with_stored_micro_batch(spec, folder, 2)
    assert {halve_micro_batch(as_run, folder, 2, "no memory") for _ in range(2)} == {16} and stored_micro_batch(folder) == 16


def test_one_image_cannot_be_halved(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, batch_size=64, micro_batch_size=1)
    assert halve_micro_batch(spec, tmp_path / "stage", 1, "no memory") is None and stored_micro_batch(tmp_path / "stage") is None


def test_another_number_of_ranks_takes_the_next_size_that_comes_out_even(tmp_path: Path) -> None:
    spec, folder = spec_of(tmp_path, batch_size=60), tmp_path / "stage"
    halve_micro_batch(spec, folder, 2, "no memory")
    assert stored_micro_batch(folder) == 15
    assert with_stored_micro_batch(spec, folder, 3).recipe.micro_batch_size == 10
    assert with_stored_micro_batch(spec, folder, 6) is spec, "10 images fit: no rank has 15"


def test_the_note_names_the_stage_and_both_batches() -> None:
    text = micro_batch_note("abc", 8, RecipeSpec(batch_size=64))
    assert "abc" in text and "8 images" in text and "global batch of 64" in text


@pytest.mark.slow
def test_a_cell_that_ran_with_less_says_so_and_is_reproduced_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = tmp_path / "grid.yaml"
    grid.write_text(ONE_CELL)
    (cell,) = read_grid(grid).cells
    trunk = make_graph([cell]).paths[cell.id][0]
    store_micro_batch(tmp_path / "runs" / "one" / "stages" / trunk, 16, "no memory")
    assert launch([str(grid)]) == OK, capsys.readouterr().err
    record = read_record(tmp_path / "runs" / "one" / "cells" / cell.id / "record.json")
    assert record.metrics is not None and record.metrics.micro_batches == {trunk: 16}
    assert any(f"stage {trunk}" in note and "micro-batches of 16 images" in note and "global batch of 64" in note for note in record.metrics.notes)
    assert reproduce([cell.id]) == REPRODUCED and "reproduced: equal to the bit" in capsys.readouterr().out
    (again,) = (tmp_path / "runs" / "one" / "reproductions").glob("*/cells/*/record.json")
    assert read_record(again).metrics.micro_batches == {trunk: 16}  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_micro_batch_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "micro_batch.json").write_bytes(content)
    assert stored_micro_batch(tmp_path) is None and stored_reason(tmp_path) == ""


@pytest.mark.parametrize(("batch", "world", "chain"), [(64, 1, [64, 32, 16, 8, 4, 2]), (60, 2, [30, 10, 2]), (12, 2, [6, 2])])
def test_where_neighbours_are_mixed_micro_batches_stay_even(batch: int, world: int, chain: list[int]) -> None:
    recipe = RecipeSpec(batch_size=batch, mixup=0.8)
    halves = [recipe_micro_batch(recipe, world)]
    while (micro := half_micro_batch(recipe, world, halves[-1])) is not None:
        halves.append(micro)
    assert halves == chain
