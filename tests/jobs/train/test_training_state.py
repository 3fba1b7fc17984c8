"""Seeds of a stage."""

from jobs.train.training_state import derived_seed


def test_seeds_for_different_purposes_differ_and_fit_any_generator() -> None:
    seeds = {derived_seed(seed, purpose) for seed in range(50) for purpose in ("order", "dropout")}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)
