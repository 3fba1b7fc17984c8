"""The tables of the field."""

from benchmarks.field import accuracy, faster, left, table

DENSE = {
    "model": "a",
    "pruning": "dense",
    "top1": "90.0",
    "top1_std": "1.0",
    "top1_vs_dense_ci95_low": "",
    "gmacs_nonzero": "2.0",
    "speedup_measured": "1",
}
PRUNED = DENSE | {"pruning": "magnitude(0.5)", "top1": "89.9", "top1_vs_dense_ci95_low": "-0.5", "gmacs_nonzero": "1.0", "speedup_measured": ""}
WORSE = PRUNED | {"model": "b", "top1_vs_dense_ci95_low": "-3", "top1_std": ""}
FAILED = WORSE | {"pruning": "wanda(0.5)", "top1": ""}
ROWS = [PRUNED, DENSE, DENSE | {"model": "b"}, WORSE, FAILED]


def test_dense_comes_first_and_a_method_without_a_number_leaves_its_field_empty() -> None:
    assert table(ROWS, accuracy) == [
        "| method | a | b |",
        "|---|---:|---:|",
        "| dense | 90.0 ± 1.0 | 90.0 ± 1.0 |",
        "| magnitude(0.5) | **89.9 ± 1.0** | 89.9 |",
    ]


def test_costs_stand_beside_those_of_the_familys_dense_network() -> None:
    assert table(ROWS, left)[3] == "| magnitude(0.5) | 0.50 | 0.50 |"
    assert table(ROWS, faster)[3] == "| magnitude(0.5) |  |  |" and table(ROWS, faster)[2] == "| dense | 1.00 | 1.00 |"
