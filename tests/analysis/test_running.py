"""The stages in training, by their files."""

import json
import os
from pathlib import Path

from analysis.running import POINTS, curves_of, latest_stages, points, stages_in_training
from tests.support.records import fake_curve
from tests.support.runs import FakeRun


def test_a_stage_with_metrics_trains_until_it_leaves_weights_or_a_failure(fake: FakeRun) -> None:
    one, two = fake.trunks
    assert stages_in_training([fake.run.path]) == [] and latest_stages([fake.run.path], 3) == []
    for age, stage in enumerate((one, two)):
        fake_curve(fake.run.path, stage, 3)
        os.utime(fake.run.stage_dir(stage) / "metrics.jsonl", (1000 - age, 1000 - age))
    fake.beat(two)
    first, second = stages_in_training([fake.run.path])
    assert (first.stage, second.stage) == (one, two) and second.title == "vim_micro  train  seed 1"
    assert first.progress is None and second.progress is not None and second.progress.step == 25
    assert first.loss == ((1.0, 9.0), (2.0, 9.0), (3.0, 9.0)) and first.val_top1 == ((1.0, 91.0), (2.0, 92.0), (3.0, 93.0))
    fake.finish(one)
    fake.fail(two)
    assert stages_in_training([fake.run.path]) == []
    assert [curves.stage for curves in latest_stages([fake.run.path], 1)] == [one]


def test_a_folder_that_is_no_run_has_none(tmp_path: Path) -> None:
    assert stages_in_training([tmp_path, tmp_path / "none"]) == []


def test_a_curve_is_thinned_and_keeps_its_end_and_leaves_out_what_is_no_number() -> None:
    lines: list[dict[str, object]] = [{"step": step, "loss": 1 / step} for step in range(1, 10 * POINTS)]
    thin = points([*lines, {"step": 10 * POINTS, "loss": float("nan")}, {"loss": 3.0}, {"step": "x", "loss": 1}], "loss")
    assert len(thin) <= POINTS and thin[-1] == (10 * POINTS - 1, 1 / (10 * POINTS - 1)) and points([], "loss") == ()


def test_losses_are_those_of_steps_and_else_those_of_epochs(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"event": "epoch", "step": 7, "loss": 2.0, "val_top1": 50.0}) + '\n{"torn')
    assert curves_of(path, 1, 1) == (((7.0, 2.0),), ((7.0, 50.0),))
