import pytest
import torch

from models.pruning.base import Budget
from models.pruning.registry import create_method
from models.pruning.semi_structured import two_of_four
from tests.support.network_views import fake_network


def test_the_two_largest_of_every_four_neighbours_are_kept():
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    mask = two_of_four(weight)
    for row in range(6):
        for start in range(0, 16, 4):
            block = [abs(float(weight[row, start + index])) for index in range(4)]
            kept = sorted(range(4), key=lambda index, block=block: block[index])[2:]
            assert mask[row, start : start + 4].nonzero().flatten().tolist() == sorted(kept)


def test_ties_still_leave_two_of_four():
    assert two_of_four(torch.zeros(2, 8)).tolist() == [[False, False, True, True] * 2] * 2


@pytest.mark.parametrize("shape", [(8,), (8, 6), (8, 1, 4), (4, 4, 2, 2)])
def test_what_the_kernels_do_not_take_stays_dense(shape):
    assert bool(two_of_four(torch.randn(shape)).all())


def test_the_mask_is_drawn_from_the_trained_network():
    weights = {"a": torch.randn(4, 8), "b": torch.randn(4, 3)}
    expected = {name: two_of_four(weight) for name, weight in weights.items()}
    network = fake_network(weights)
    method = create_method("semi_structured")
    method.begin(network)
    assert all(torch.equal(network.masks[name], mask) for name, mask in expected.items())
    assert (weights["a"] == 0).sum() == 16 and bool(network.masks["b"].all())
    train, finetune = method.stages(Budget(epochs=12, finetune_epochs=4))
    assert train == create_method("dense").stages(Budget(epochs=12, finetune_epochs=4))[0] and finetune.method == method
