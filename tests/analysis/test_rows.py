import pytest

from analysis.merge import Merged
from analysis.rows import make_rows
from tests.support.records import fake_environment, fake_record, fake_spec, rows_of


def test_a_row_is_the_cells_that_differ_in_seed_alone() -> None:
    rows = rows_of(*(fake_record(90 + seed, seed=seed) for seed in (2, 0, 1)), fake_record(80, pruning="magnitude-0.5"))
    assert [(row.pruning, [record.seed for record in row.done]) for row in rows] == [("dense", [0, 1, 2]), ("magnitude-0.5", [0])]


def test_the_difference_to_dense_pairs_equal_seeds() -> None:
    dense = [fake_record(top1, seed=seed) for seed, top1 in enumerate((97.0, 95.0, 90.0))]
    pruned = [fake_record(top1, pruning="magnitude-0.5", seed=seed) for seed, top1 in enumerate((96.0, 94.0))]
    row = next(row for row in rows_of(*dense, *pruned) if row.pruning != "dense")
    assert row.against_dense is not None
    assert (row.against_dense.mean, row.against_dense.n) == (pytest.approx(-1.0), 2)  # the means alone would say +1.0


def test_dense_is_compared_within_one_model() -> None:
    rows = rows_of(fake_record(97), fake_record(90, model="other"), fake_record(89, model="other", pruning="magnitude-0.5"))
    pruned = next(row for row in rows if row.pruning != "dense")
    assert pruned.against_dense is not None and pruned.against_dense.mean == pytest.approx(-1)


def test_a_row_is_compared_with_the_dense_row_that_took_its_epochs_where_there_is_one() -> None:
    longer = {"method": "dense", "label": "dense-long", "knobs": {"rounds": 2}}
    records = [
        fake_record(97, epochs=16),
        fake_record(98, pruning="dense-long", epochs=48, spec=fake_spec("dense", 0) | {"pruning": longer}),
        fake_record(96, pruning="magnitude-0.5", epochs=16),
        fake_record(97, pruning="iterative_magnitude-0.5", epochs=48),
        fake_record(95, pruning="iterative_magnitude-0.7", epochs=60),
    ]
    controls = {row.pruning: row.dense.pruning for row in rows_of(*records) if row.dense}
    assert controls == {"magnitude-0.5": "dense", "iterative_magnitude-0.5": "dense-long", "iterative_magnitude-0.7": "dense"}


def test_rows_are_ranked_by_mean_then_by_macs() -> None:
    fast, slow = (fake_record(90, model=name, macs_structural=macs) for name, macs in (("fast", 100), ("slow", 200)))
    rows = rows_of(slow, fake_record(95, model="best"), fast)
    assert [(row.rank, row.model) for row in rows] == [(1, "best"), (2, "fast"), (3, "slow")]


def test_rows_that_nothing_tells_apart_share_a_rank() -> None:
    rows = rows_of(fake_record(95, model="a"), fake_record(95, model="b"), fake_record(90, model="c"))
    assert [row.rank for row in rows] == [1, 1, 3]


def test_a_failed_cell_is_a_hole_in_the_row_of_its_seeds() -> None:
    on_login_node = fake_environment(cpu="Another CPU", data_sha256="", scan="auto")
    (row,) = rows_of(fake_record(97, seed=0), fake_record(None, seed=1, environment=on_login_node))
    assert (len(row.done), row.failures, row.rank) == (1, "1 diverged", 1)


def test_a_row_of_failures_alone_has_no_rank_and_stands_last() -> None:
    rows = rows_of(fake_record(None, pruning="magnitude-0.9"), fake_record(10))
    assert [(row.pruning, row.rank, row.top1 is None) for row in rows] == [("dense", 1, False), ("magnitude-0.9", None, True)]
    assert rows[0].key == rows[1].key


def test_the_plan_says_how_many_seeds_are_expected() -> None:
    records = (fake_record(97, seed=0), fake_record(96, seed=1))
    planned = {str(seed): fake_record(97, seed=seed).spec for seed in range(5)}
    (row,) = make_rows(Merged(records=records, planned=planned, conflicts=(), skipped=()))
    assert (len(row.done), row.expected) == (2, 5)


def test_a_metric_that_one_seed_lacks_has_no_average() -> None:
    (row,) = rows_of(fake_record(97, seed=0), fake_record(96, seed=1, top5=None))
    assert row.mean(lambda m: m.top5) is None and row.mean(lambda m: m.test_loss) == 0.5
