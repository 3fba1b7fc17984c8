"""The facts of a status."""

from harness.monitor.run_status import Observer, stages_at_work
from harness.monitor.survey import survey
from tests.support.fake_slurm import FakeSlurm
from tests.support.runs import FakeRun


def test_a_done_stage_is_read_once(fake: FakeRun) -> None:
    observer = Observer(fake.run)
    stage = fake.trunks[0]
    fake.finish(stage, train_s=7200.0)
    assert observer.look().trained_s == 7200.0 and observer.look().stages_done == 1
    (fake.run.stage_dir(stage) / "export" / "result.json").unlink()
    assert observer.look().trained_s == 7200.0 and observer.done_s == {stage: 7200.0}


def test_something_is_under_way_while_cells_run_wait_or_are_unknown(fake: FakeRun, slurm: FakeSlurm) -> None:
    observer = Observer(fake.run)
    assert not observer.look().under_way
    fake.submit({"17": [fake.trunks[0]]})
    for state in ("RUNNING", "PENDING:Priority"):
        slurm.queue(j17=state)
        assert observer.look().under_way
    assert stages_at_work(survey(fake.run)) == ()
    slurm.queue(j17="RUNNING")
    assert stages_at_work(survey(fake.run)) == (fake.trunks[0],), "once, for its three cells"


def test_a_model_has_come_as_far_as_the_epochs_of_its_stages(fake: FakeRun, slurm: FakeSlurm) -> None:
    first, second = fake.trunks
    fake.finish(first)
    fake.submit({"17": [second]})
    slurm.queue(j17="RUNNING")
    fake.beat(second)  # 25 of 100 steps
    lost = fake.cells_of(first)[2].stages[1]
    fake.fail(lost)
    (model,) = Observer(fake.run).look().models
    assert (model.model, model.epochs, model.trained, model.lost) == ("vim_micro", 8.0, 1.25, 1.0)
    assert model.fraction == 1.25 / 8 and model.cells == {"open": 2, "running": 3, "failed": 1} and (model.ended, model.total) == (0, 6)


def test_the_end_is_expected_only_while_something_trains_and_was_measured(fake: FakeRun, slurm: FakeSlurm) -> None:
    first, second = fake.trunks
    fake.submit({"17": [first], "18": [second]})
    slurm.queue(j17="RUNNING", j18="PENDING:Priority")
    assert Observer(fake.run).look().end is None
    fake.beat(first)  # 75 s to go, at 100 s for its epoch
    status = Observer(fake.run).look()
    assert status.left_s == 75 + 7 * 100 and status.end == status.time + 775
