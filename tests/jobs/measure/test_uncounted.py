"""Operations that are not counted are listed and bounded, and unknown ones are refused."""

import pytest
import torch
from torch import Tensor, nn

from jobs.measure.multiply_adds import count_multiply_adds
from tests.support.networks import Calls, Patches


def test_a_product_of_real_numbers_element_by_element_is_listed_and_bounded():
    costs = count_multiply_adds(Patches(nn.Sequential(nn.Linear(12, 12), Calls(lambda x: x * x))), img_size=8, masks={})
    assert costs.uncounted_ops == {"aten::mul": 1, "aten::pixel_unshuffle": 1}
    assert costs.uncounted_share == pytest.approx(16 * 12 / (16 * 12 + 16 * 12 * 12))


def test_a_light_operation_is_bounded_by_its_largest_tensor_and_twenty_operations_an_element_at_most():
    costs = count_multiply_adds(Patches(nn.Sequential(nn.Linear(12, 200), nn.Linear(200, 12), nn.GELU(), nn.Linear(12, 12))), img_size=8, masks={})
    left_out, counted = 20 * 16 * 12, 2 * 16 * 12 * 200 + 16 * 12 * 12
    assert costs.macs == counted and costs.uncounted_share == pytest.approx(left_out / (left_out + counted))


def test_light_operations_that_outweigh_what_is_counted_are_said_to():
    costs = count_multiply_adds(Patches(nn.Sequential(nn.Linear(12, 1), Calls(lambda x: x.expand(-1, -1, 100).exp()))), img_size=8, masks={})
    assert costs.uncounted_share > 0.99


def test_operations_that_are_not_counted_are_listed_with_their_number():
    model = Patches(nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 300), nn.Linear(300, 12), nn.GELU(), nn.Linear(12, 12), nn.GELU()))
    uncounted = count_multiply_adds(model, img_size=8, masks={}).uncounted_ops
    assert uncounted["aten::gelu"] == 2 and uncounted["aten::layer_norm"] == 1


def test_a_heavy_operation_without_a_counter_is_an_error():
    class Heavy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.linalg.matrix_exp(images)

    with pytest.raises(ValueError, match="nothing counts the operations aten::linalg_matrix_exp"):
        count_multiply_adds(Heavy(), img_size=8, masks={})
