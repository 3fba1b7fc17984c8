"""Seconds of training, used and left."""

import json

import pytest

from harness.monitor.survey import survey
from harness.monitor.training_time import trained_s, until_end_s
from jobs.experiment.progress import read_progress
from tests.support.runs import FakeRun


def test_a_done_stage_says_how_long_it_took(fake: FakeRun) -> None:
    stage = fake.trunks[0]
    assert trained_s(fake.run, stage) == 0.0
    fake.finish(stage, train_s=12.5)
    assert trained_s(fake.run, stage) == 12.5
    result = fake.run.stage_dir(stage) / "export" / "result.json"
    result.write_text(json.dumps({"train_loss": float("nan"), "train_s": 7.0}))
    assert trained_s(fake.run, stage) == 7.0
    result.write_text('{"train_s": ')
    assert trained_s(fake.run, stage) == 0.0


def test_before_a_stage_is_done_the_time_left_is_unknown(fake: FakeRun) -> None:
    assert until_end_s(survey(fake.run), {}, {}, 1) is None


def test_stages_take_as_long_as_done_ones_of_their_kind_and_others_as_the_mean_epoch(fake: FakeRun) -> None:
    first, second = fake.trunks
    child = fake.cells_of(first)[1].stages[1]
    fake.finish(first)
    fake.finish(child)
    surveyed = survey(fake.run)
    # of 8 stages with an epoch each: one more trunk takes 100 s, one more of the child's kind 10 s, 4 others the mean, 55 s
    assert until_end_s(surveyed, {first: 100.0, child: 10.0}, {}, 1) == pytest.approx(100 + 10 + 4 * 55)
    fake.beat(second, epoch=1)
    progress = read_progress(fake.run.stage_dir(second))
    assert progress is not None
    # the second trunk has 75 s to go after 25 s for a quarter of its epoch: trunks take 125 s for 1.25 epochs, and the mean epoch is 135 / 2.25 s
    assert until_end_s(surveyed, {first: 100.0, child: 10.0}, {second: progress}, 1) == pytest.approx(75 + 10 + 4 * 60)


def test_stages_of_failed_and_blocked_cells_alone_are_not_waited_for(fake: FakeRun) -> None:
    first, second = fake.trunks
    fake.finish(first)
    fake.fail(second)
    own = [path.stages[1] for path in fake.cells_of(first)]
    for stage in own[:2]:
        fake.fail(stage)
    assert until_end_s(survey(fake.run), {first: 100.0}, {}, 1) == pytest.approx(100.0), "one stage of an open cell"


def test_the_end_comes_no_sooner_than_the_cell_whose_stages_take_longest(fake: FakeRun) -> None:
    first, second = fake.trunks
    fake.finish(first)
    surveyed = survey(fake.run)
    seven = 7 * 60.0  # stages of 60 s: one trunk and six children
    assert until_end_s(surveyed, {first: 60.0}, {}, 1) == pytest.approx(seven) and until_end_s(surveyed, {first: 60.0}, {}, 2) == pytest.approx(
        seven / 2
    )
    assert until_end_s(surveyed, {first: 60.0}, {}, 100) == pytest.approx(120.0), "the second trunk, then a child"
    assert until_end_s(surveyed, {first: 60.0}, {}, 0) is None and until_end_s(surveyed, {}, {}, 2) is None
