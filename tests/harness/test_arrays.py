"""Levels of SLURM arrays."""

from pathlib import Path

from harness.arrays import levels
from harness.records import RunFolder
from tests.harness.make_orders import orders_of, small_grid


def test_a_level_starts_only_from_levels_before_it(tmp_path: Path) -> None:
    orders, _ = orders_of(small_grid(tmp_path), RunFolder(tmp_path))
    found = levels(orders)
    assert [len(level) for level in found] == [2, 6]
    assert {spec.parent for order in found[1] for spec in order.stages} == {spec.id for order in found[0] for spec in order.stages}


def test_a_parent_that_is_done_leaves_one_level(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    orders, _ = orders_of(small_grid(tmp_path), run)
    for order in levels(orders)[0]:
        (run.stage(order.stages[0].id) / "export").mkdir(parents=True)
    assert [len(level) for level in levels(orders_of(small_grid(tmp_path), run)[0])] == [6]
