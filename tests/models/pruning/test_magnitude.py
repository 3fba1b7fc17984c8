import pytest

from models.pruning.base import Budget
from models.pruning.registry import create_method
from tests.support.network_views import fake_network, lowest_dropped, random_weights, same


@pytest.mark.parametrize("values", [None, 3])
def test_the_smallest_weights_of_the_whole_network_go(values):
    weights = random_weights(values=values)
    expected = lowest_dropped({name: weight.abs() for name, weight in weights.items()}, 180)
    network = fake_network(weights)
    create_method("magnitude", sparsity=0.9).begin(network)
    assert same(network.masks, expected)
    assert all((weights[name][~mask] == 0).all() for name, mask in expected.items())


def test_layer_scope_prunes_every_parameter_alike():
    weights = random_weights()
    network = fake_network(weights)
    create_method("magnitude", sparsity=0.75, scope="layer").begin(network)
    assert {name: int((~mask).sum()) for name, mask in network.masks.items()} == {"a": 30, "b": 90, "c": 30}


def test_the_mask_is_drawn_even_where_nothing_is_left_to_fine_tune():
    method = create_method("magnitude", sparsity=0.9)
    *_, last = method.stages(Budget(epochs=3, finetune_epochs=0))
    assert last.epochs == 0 and last.method == method and last.start == "parent"
