import pytest
import torch

from models.pruning.base import Budget
from models.pruning.registry import create_method
from tests.support.network_views import fake_network


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("values", [None, 3])
def test_every_row_loses_its_lowest_products_of_weight_and_norm(sparsity, values):
    """By brute force, ties among them: of equal products the first goes."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"linear": (6, 20), "conv": (5, 3, 2, 2), "depthwise": (7, 1, 4)}

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randint(1, values, shape, generator=generator).float() if values else torch.randn(shape, generator=generator)

    weights = {name: draw(shape) for name, shape in shapes.items()}
    norms = {"linear": draw((20,)).abs(), "conv": draw((1, 3, 2, 2)).abs(), "depthwise": draw((7, 1, 4)).abs()}
    before = {name: weight.clone() for name, weight in weights.items()}
    network = fake_network(weights, norms=norms)
    create_method("wanda", sparsity=sparsity).begin(network)
    for name, weight in before.items():
        for row in range(len(weight)):
            scores = (weight.abs() * norms[name])[row].flatten().tolist()
            zeros = min(round(sparsity * len(scores)), len(scores) - 1)
            gone = sorted(range(len(scores)), key=lambda index, scores=scores: scores[index])[:zeros]
            assert (~network.masks[name][row].flatten()).nonzero().flatten().tolist() == sorted(gone), (name, row)


def test_a_large_weight_on_a_silent_input_goes_before_a_small_one_on_a_loud_input():
    network = fake_network({"a": torch.tensor([[9.0, 0.1]])}, norms={"a": torch.tensor([0.01, 100.0])})
    create_method("wanda", sparsity=0.5).begin(network)
    assert network.masks["a"].tolist() == [[False, True]]


def test_it_asks_for_the_inputs_of_as_many_batches_as_it_says():
    asked = []
    network = fake_network({"a": torch.ones(2, 2)})
    network.input_norms = lambda batches: asked.append(batches) or {"a": torch.ones(2)}
    create_method("wanda", sparsity=0.5, batches=7).begin(network)
    assert asked == [7]


def test_it_prunes_the_shared_trunk():
    method, budget = create_method("wanda", sparsity=0.5), Budget(epochs=12, finetune_epochs=4)
    first, second = method.stages(budget)
    assert first == create_method("dense").stages(budget)[0] and second.method == method and second.start == "parent"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"groups": ("mlp", "A_log", "norms")}, "groups must be weights of layers.*leave out A_log, norms"),
        ({"batches": 0}, "batches must be at least 1 batch, got 0"),
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\), got 1"),
    ],
)
def test_impossible_knobs_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        create_method("wanda", **{"sparsity": 0.5} | knobs)
