"""What makes equal work, and what does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cost.work import NO_MATTER, Keys, Shape, batches_without_step, dense_training, key_of, kind_of, shape_of, steps_of
from harness.plan.stages import make_graph
from jobs.experiment.specs import ClusterSpec, RecipeSpec
from models.pruning.gradient import Gradient
from tests.support.grids import START, read
from tests.support.jobs import small_grid

ALONE = Shape(1, 1, False)


def test_cells_that_differ_in_pruning_seed_and_rates_are_one_work(tmp_path: Path) -> None:
    cells = small_grid(tmp_path).cells
    others = [replace(cell, recipe=replace(cell.recipe, lr=1.0, epochs=9, weight_decay=0.0)) for cell in cells]
    assert len({key_of(cell, ALONE) for cell in [*cells, *others]}) == 1


@pytest.mark.parametrize("change", [{"batch_size": 32}, {"dtype": "bf16"}, {"mixup": 0.8}, {"ema": 0.99}, {"optimizer": "lamb"}, {"mesa": 1.0}])
def test_what_changes_a_step_makes_another_work(tmp_path: Path, change: dict[str, object]) -> None:
    cell = small_grid(tmp_path).cells[0]
    assert key_of(cell, ALONE) != key_of(replace(cell, recipe=replace(cell.recipe, **change)), ALONE)  # type: ignore[arg-type]


def test_so_do_the_model_the_data_and_the_shape_of_the_job(tmp_path: Path) -> None:
    cell = small_grid(tmp_path).cells[0]
    deeper = replace(cell, model=replace(cell.model, options={"depth": 1}))
    larger = replace(cell, data=replace(cell.data, img_size=64))
    keys = {key_of(cell, ALONE), key_of(deeper, ALONE), key_of(larger, ALONE), key_of(cell, Shape(2, 1, False)), key_of(cell, Shape(1, 1, True))}
    assert len(keys) == 5 and shape_of(ClusterSpec(nodes=2, tasks_per_node=2, gpus_per_node=2)) == Shape(4, 1, True)


def test_a_label_and_a_file_of_weights_do_not(tmp_path: Path) -> None:
    cell = small_grid(tmp_path).cells[0]
    given = replace(cell, model=replace(cell.model, label="other", options={"pretrained": "x.pth"}, pretrained_sha256="0" * 64))
    assert key_of(given, ALONE) == key_of(cell, ALONE)


def test_the_fields_that_do_not_matter_are_fields() -> None:
    assert set(RecipeSpec.__dataclass_fields__) >= NO_MATTER


def test_a_stage_is_of_its_cells_work_and_has_a_kind(tmp_path: Path) -> None:
    grid = small_grid(tmp_path)
    graph = make_graph(grid.cells)
    assert {key_of(spec, ALONE) for spec in graph.stages.values()} == {key_of(grid.cells[0], ALONE)}
    assert {kind_of(spec) for spec in graph.stages.values()} == {"train", "finetune", "finetune magnitude"}
    assert {steps_of(spec, 40) for spec in graph.stages.values()} == {40}


def test_a_taught_stage_is_another_kind_of_the_same_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    grid = read(START + "recipe: {epochs: 2, finetune_epochs: 1, distill: {teacher: dense}}\n")
    graph = make_graph(grid.cells)
    assert len({key_of(spec, ALONE) for spec in graph.stages.values()}) == 1
    assert "train" in {kind_of(spec) for spec in graph.stages.values()} and any(kind_of(spec).endswith(" taught") for spec in graph.stages.values())


def test_a_rewound_stage_makes_the_steps_after_its_rewind_and_a_calibrated_one_none(tmp_path: Path) -> None:
    spec = next(iter(make_graph(small_grid(tmp_path).cells).stages.values()))
    rewound = replace(spec, stage=replace(spec.stage, epochs=2, start="rewind", rewind_step=30))
    assert steps_of(rewound, 40) == 50 and steps_of(replace(rewound, stage=replace(rewound.stage, rewind_step=90)), 40) == 0
    method = Gradient(sparsity=0.5)
    calibrated = replace(spec, stage=replace(spec.stage, epochs=0, method=method))
    assert batches_without_step(calibrated) == method.calibration_batches > 0 == batches_without_step(spec)


def test_the_dense_training_is_timed_without_given_weights(tmp_path: Path) -> None:
    cell = next(cell for cell in small_grid(tmp_path).cells if cell.method.name != "dense")
    given = replace(cell, model=replace(cell.model, options={"depth": 2, "pretrained": "x.pth"}, pretrained_sha256="0" * 64))
    dense, spec = dense_training(given)
    assert dense.method.name == "dense" and spec.model.options == {"depth": 2} and spec.stage.start == "scratch" and spec.stage.method is None
    assert dense_training(given)[1].id == spec.id != dense_training(cell)[1].id


def test_keys_of_many_are_those_of_each(tmp_path: Path) -> None:
    grid, keys = small_grid(tmp_path), Keys()
    parts = [*grid.cells, *make_graph(grid.cells).stages.values()]
    assert [keys.of(part, ALONE) for part in parts] == [key_of(part, ALONE) for part in parts] and len(keys.known) < len(parts)
    assert keys.of(grid.cells[0], Shape(2, 1, False)) != keys.of(grid.cells[0], ALONE)
