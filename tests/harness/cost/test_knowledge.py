"""The cost of a stage and of a measurement, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cost.knowledge import ASSUMED_START_S, Knowledge, cost_from_records, cost_from_times
from harness.cost.learned import Learned, Sample
from harness.cost.work import key_of, kind_of, shape_of
from harness.grid.read import Grid
from harness.plan.stages import make_graph
from jobs.experiment.ids import StageId
from jobs.experiment.specs import Distillation, StageSpec
from models.pruning.gradient import Gradient
from tests.support.jobs import small_grid
from tests.support.times import TIMES, known


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return small_grid(tmp_path)


@pytest.fixture
def train(grid: Grid) -> StageSpec:
    """The dense training: one epoch."""
    return next(spec for spec in make_graph(grid.cells).stages.values() if kind_of(spec) == "train")


def learned(**samples: list[Sample]) -> Learned:
    return Learned(
        device="a CPU",
        records=2,
        stages={kind: {("", StageId(str(number))): sample for number, sample in enumerate(of_kind)} for kind, of_kind in samples.items()},
    )


def sample(train_s: float, steps: int, before_s: float = 2.0, joules: float | None = None) -> Sample:
    return Sample(wall_s=train_s + before_s, train_s=train_s, steps=steps, epochs=1, joules=joules, file_bytes=1000)


def test_a_timed_stage_is_its_steps_evaluations_checkpoints_and_export(train: StageSpec) -> None:
    cost = cost_from_times(train, TIMES)
    assert cost.seconds == pytest.approx(2.0 + (1.0 - 0.5) + 40 * 0.5 + 100 * 0.01 + 0.25 + 0.125)
    assert (cost.file_bytes, cost.joules) == (1000, None)
    longer = cost_from_times(replace(train, stage=replace(train.stage, epochs=3)), TIMES)
    assert longer.seconds - cost.seconds == pytest.approx(2 * (40 * 0.5 + 100 * 0.01 + 0.25))


def test_a_teacher_and_an_average_run_beside_each_step(train: StageSpec) -> None:
    taught = replace(train, recipe=replace(train.recipe, distill=Distillation(teacher="dense")))
    extra_s = 40 * train.recipe.batch_size * 0.01
    assert cost_from_times(taught, TIMES).seconds - cost_from_times(train, TIMES).seconds == pytest.approx(extra_s)
    mesa = replace(train, recipe=replace(train.recipe, ema=0.9, mesa=1.0, mesa_start=0.25))
    assert cost_from_times(mesa, TIMES).seconds - cost_from_times(train, TIMES).seconds == pytest.approx(0.75 * extra_s)


def test_a_pruned_stage_is_validated_once_more_and_leaves_masks(grid: Grid) -> None:
    pruned = next(spec for spec in make_graph(grid.cells).stages.values() if kind_of(spec) == "finetune magnitude")
    plain = replace(pruned, stage=replace(pruned.stage, method=None))
    assert cost_from_times(pruned, TIMES).seconds - cost_from_times(plain, TIMES).seconds == pytest.approx(100 * 0.01)
    assert cost_from_times(pruned, TIMES).file_bytes == 1000 + 100 and cost_from_times(plain, TIMES).file_bytes == 1000


def test_a_stage_without_epochs_costs_its_calibration_and_one_validation(train: StageSpec) -> None:
    method = Gradient(sparsity=0.5)
    spec = replace(train, stage=replace(train.stage, epochs=0, method=method))
    assert cost_from_times(spec, TIMES).seconds == pytest.approx(2.0 + method.calibration_batches * 0.5 + 100 * 0.01 + 0.125)


def test_energy_is_that_of_the_steps(train: StageSpec) -> None:
    assert cost_from_times(train, TIMES.model_copy(update={"step_joules": 3.0})).joules == 120.0


def test_records_of_the_same_kind_give_rate_and_overhead(train: StageSpec) -> None:
    known = learned(train=[sample(20.0, 40), sample(30.0, 40, before_s=4.0)], other=[sample(999.0, 40)])
    cost = cost_from_records(train, known)
    assert cost.seconds == pytest.approx(3.0 + 40 * 50 / 80) and cost.file_bytes == 1000
    assert cost_from_records(replace(train, stage=replace(train.stage, epochs=10)), known).seconds == pytest.approx(3.0 + 400 * 50 / 80)


def test_a_kind_without_records_is_judged_by_all_stages_of_the_model(grid: Grid) -> None:
    pruned = next(spec for spec in make_graph(grid.cells).stages.values() if kind_of(spec) == "finetune magnitude")
    cost = cost_from_records(pruned, learned(train=[sample(20.0, 40)]))
    assert cost.seconds == pytest.approx(2.0 + 40 * 0.5)


def test_stages_without_steps_take_what_they_took(train: StageSpec) -> None:
    spec = replace(train, stage=replace(train.stage, epochs=0))
    known = learned(train=[sample(0.0, 0, before_s=7.0), sample(0.0, 0, before_s=9.0)], other=[sample(40.0, 40)])
    assert cost_from_records(spec, known).seconds == 8.0


def test_energy_of_records_is_known_if_it_is_of_every_stage(train: StageSpec) -> None:
    both = learned(train=[sample(20.0, 40, joules=80.0), sample(20.0, 40, joules=160.0)])
    assert cost_from_records(train, both).joules == pytest.approx(40 * 3.0)
    assert cost_from_records(train, learned(train=[sample(20.0, 40, joules=80.0), sample(20.0, 40)])).joules is None


def test_a_measurement_is_that_of_records_of_its_kind_or_what_was_timed(grid: Grid) -> None:
    shape, cells = shape_of(grid.cluster), {cell.method.name: cell for cell in grid.cells}
    key = key_of(grid.cells[0], shape)
    assert known(grid).measurement_s(cells["dense"], shape) == pytest.approx(4.0 + 300 * 0.01)
    records = learned(train=[sample(20.0, 40)])
    records.measured_s = {False: [2.0, 4.0], True: [8.0]}
    both = Knowledge(learned={key: records})
    assert both.measurement_s(cells["dense"], shape) == 3.0 and both.measurement_s(cells["magnitude"], shape) == 8.0
    records.measured_s = {False: [2.0]}
    assert both.measurement_s(cells["magnitude"], shape) == 2.0


def test_a_start_is_the_mean_of_those_timed_or_assumed(grid: Grid) -> None:
    assert known(grid).start_s == 10.0 and Knowledge().start_s == ASSUMED_START_S


def test_checkpoints_are_those_timed_or_three_times_the_weights(grid: Grid) -> None:
    key = key_of(grid.cells[0], shape_of(grid.cluster))
    assert known(grid).checkpoint_bytes(key) == 4000
    assert Knowledge(learned={key: learned(train=[sample(1.0, 1)])}).checkpoint_bytes(key) == 3000


def test_unknown_work_is_an_error(train: StageSpec, grid: Grid) -> None:
    with pytest.raises(KeyError):
        Knowledge().stage(train, shape_of(grid.cluster))
