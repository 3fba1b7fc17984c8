"""What orders wait for."""

from pathlib import Path

from harness.submit.slurm import by_array, headway, needed, waits
from jobs.experiment.run_folder import RunFolder
from tests.support.jobs import orders_of, small_grid


def test_a_child_waits_for_the_job_of_its_parent(tmp_path: Path) -> None:
    orders, _ = orders_of(small_grid(tmp_path), RunFolder(tmp_path))
    for order, before in zip(orders, waits(orders, {}, []), strict=True):
        assert {spec.parent for spec in order.stages} - {None} == {spec.id for index in before for spec in orders[index].stages}


def test_a_parent_that_is_done_is_not_waited_for(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    orders, _ = orders_of(small_grid(tmp_path), run)
    for order in orders:
        if order.stages[0].parent is None:
            (run.stage_dir(order.stages[0].id) / "export").mkdir(parents=True)
    assert waits(orders_of(small_grid(tmp_path), run)[0], {}, []) == [frozenset()] * 6


def test_a_child_of_a_living_jobs_stage_waits_for_that_job_alone(tmp_path: Path) -> None:
    orders, _ = orders_of(small_grid(tmp_path), RunFolder(tmp_path))
    trunks = [order.stages[0].id for order in orders if order.stages[0].parent is None]
    children = [order for order in orders if order.stages[0].parent]
    living = {trunks[1]: "17_3", trunks[0]: "17_0", "of no interest": "18"}
    jobs = needed(children, living)
    assert sorted(jobs) == ["17_0", "17_3"] and by_array(jobs) == [{int(job[3:]): place for place, job in enumerate(jobs)}]
    for order, before in zip([None, None, *children], waits(children, living, jobs), strict=True):
        assert before == (frozenset({jobs.index(living[order.stages[0].parent or ""])}) if order else frozenset())


def test_an_order_that_only_measures_what_a_living_job_trains_waits_for_it(tmp_path: Path) -> None:
    orders, _ = orders_of(small_grid(tmp_path), RunFolder(tmp_path))
    living = {orders[0].stages[0].id: "17"}
    assert needed(orders, living) == ["17"] and by_array(["17"]) == [{0: 0}]
    before = waits(orders, living, ["17"])
    assert before[1] == frozenset({0}), "the stage itself"
    assert {1} in before[2:] and frozenset({0}) not in before[2:], "its children wait for whoever measures it, who waits for the job"


def test_a_new_checkpoint_is_headway_and_a_torn_one_is_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    order = orders_of(small_grid(tmp_path), run)[0][0]
    before = headway(order)
    checkpoints = run.stage_dir(order.stages[0].id) / "checkpoints"
    (checkpoints / ".step-000000010").mkdir(parents=True)
    assert headway(order) == before
    (checkpoints / "step-000000010").mkdir()
    assert headway(order) != before
