"""Training curves of cells, from the metrics of their stages."""

from pathlib import Path

import pytest

from analysis.curves import curve, number
from jobs.experiment.run_folder import RunFolder
from tests.support.records import fake_curve, fake_record


def test_curves_are_joined_along_the_stages_of_a_cell(tmp_path: Path) -> None:
    record = fake_record(90.0)
    fake_curve(tmp_path, record.stages[0], 3)
    fake_curve(tmp_path, record.stages[1], 2)
    read = curve(record, [tmp_path / "elsewhere", tmp_path])
    assert read is not None
    assert read.epochs == (1, 2, 3, 4, 5) and read.val_top1 == (91.0, 92.0, 93.0, 91.0, 92.0)


def test_a_long_curve_is_thinned_and_keeps_its_end(tmp_path: Path) -> None:
    record = fake_record(90.0)
    fake_curve(tmp_path, record.stages[0], 901)
    read = curve(record, [tmp_path])
    assert read is not None and len(read.epochs) <= 200 and read.epochs[-1] == 901


def test_torn_foreign_and_infinite_metrics_are_left_out(tmp_path: Path) -> None:
    record = fake_record(90.0)
    path = RunFolder(tmp_path).stage_dir(record.stages[0]) / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"event": "epoch", "epoch": 1, "loss": NaN, "val_top1": 50}\n[1]\nnonsense\n{"event": "epoch", "epoch": "x"}\n{"event": "ep')
    read = curve(record, [tmp_path])
    assert read is not None and (read.epochs, read.loss, read.val_top1) == ((1.0,), (None,), (50.0,))


def test_a_cell_without_metrics_has_no_curve(tmp_path: Path) -> None:
    assert curve(fake_record(90.0), [tmp_path]) is None


def test_the_first_run_folder_with_metrics_of_a_stage_is_read(tmp_path: Path) -> None:
    record = fake_record(90.0)
    fake_curve(tmp_path / "b", record.stages[0], 2)
    fake_curve(tmp_path / "c", record.stages[0], 5)
    read = curve(record, [tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert read is not None and (read.seed, read.epochs, read.loss) == (0, (1.0, 2.0), (1.0, 0.5))


@pytest.mark.parametrize(
    ("value", "read"), [(3, 3.0), (0.5, 0.5), (True, None), ("1", None), (None, None), (float("nan"), None), (float("-inf"), None)]
)
def test_only_a_finite_number_is_a_number(value: object, read: float | None) -> None:
    assert number(value) == read
