import math

import pytest

from models.pruning.allocation import erk, whole


def test_densities_are_proportional_to_the_sum_of_the_shape_over_its_product():
    shapes = {"a": (100, 50), "b": (64, 64), "c": (32, 16, 3, 3)}
    zeros = erk(shapes, 0.9)
    ratios = {name: (1 - zeros[name] / math.prod(shape)) / (sum(shape) / math.prod(shape)) for name, shape in shapes.items()}
    assert max(ratios.values()) / min(ratios.values()) < 1.02  # but for whole numbers
    assert sum(zeros.values()) == round(0.9 * sum(map(math.prod, shapes.values())))


def test_a_parameter_that_would_be_more_than_dense_is_dense_and_the_others_carry_its_share():
    shapes = {"small": (4, 1, 4), "a": (40, 40), "b": (80, 40)}
    zeros = erk(shapes, 0.5)
    assert zeros["small"] == 0 and zeros["a"] + zeros["b"] == round(0.5 * 4816)
    assert (1600 - zeros["a"]) / 80 == pytest.approx((3200 - zeros["b"]) / 120, rel=0.02)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.77, 0.999])
def test_the_zeros_of_all_parameters_add_up_exactly(sparsity):
    shapes = {"a": (7, 3), "b": (11,), "c": (5, 1, 4), "d": (13, 17)}
    zeros = erk(shapes, sparsity)
    assert sum(zeros.values()) == round(sparsity * (21 + 11 + 20 + 221))
    assert all(0 <= zeros[name] <= math.prod(shape) for name, shape in shapes.items())


def test_remainders_go_to_the_largest_first():
    assert whole({"a": 1.2, "b": 2.7, "c": 0.6, "d": 0.5}, 5) == {"a": 1, "b": 3, "c": 1, "d": 0}
