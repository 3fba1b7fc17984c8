"""What orders wait for."""

from pathlib import Path

from harness.arrays import headway, waits
from harness.records import RunFolder
from tests.harness.make_orders import orders_of, small_grid


def test_a_child_waits_for_the_job_of_its_parent(tmp_path: Path) -> None:
    orders, _ = orders_of(small_grid(tmp_path), RunFolder(tmp_path))
    for order, before in zip(orders, waits(orders), strict=True):
        assert {spec.parent for spec in order.stages} - {None} == {spec.id for index in before for spec in orders[index].stages}


def test_a_parent_that_is_done_is_not_waited_for(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    orders, _ = orders_of(small_grid(tmp_path), run)
    for order in orders:
        if order.stages[0].parent is None:
            (run.stage(order.stages[0].id) / "export").mkdir(parents=True)
    assert waits(orders_of(small_grid(tmp_path), run)[0]) == [frozenset()] * 6


def test_a_new_checkpoint_is_headway_and_a_torn_one_is_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    order = orders_of(small_grid(tmp_path), run)[0][0]
    before = headway(order)
    checkpoints = run.stage(order.stages[0].id) / "checkpoints"
    (checkpoints / ".step-000000010").mkdir(parents=True)
    assert headway(order) == before
    (checkpoints / "step-000000010").mkdir()
    assert headway(order) != before
