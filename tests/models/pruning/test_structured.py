from dataclasses import replace

import pytest
import torch

from models.pruning.base import Budget, NetworkView, Progress
from models.pruning.registry import create_method, method_label
from models.pruning.structure import find_groups
from tests.support.removal import images, small_network


class Caught:
    """A view of a network, which keeps the structures that it is asked to remove."""

    def __init__(self, variant, seed=0):
        self.network, self.structures = small_network(variant), []
        self.view = NetworkView(
            names=(),
            seed=seed,
            read_weight=lambda name: self.network.get_parameter(name).detach().clone(),
            read_gradient=lambda name: self.network.get_parameter(name).grad.clone(),
            input_norms={}.get,
            apply=lambda masks: None,
            groups=find_groups(self.network, 32),
            remove=self.remove,
        )

    def remove(self, structure):
        self.structures.append(structure)
        self.view.groups = ()

    def backward(self, number):
        """The gradient of another loss for each number."""
        self.network.zero_grad()
        (self.network(images()) * torch.arange(1, 11).roll(number)).sum().backward()

    @property
    def kept(self):
        (structure,) = self.structures
        return structure.kept


def weights_of_inner_unit(network, layer, unit):
    """All weights of layers that channel `unit` of a Vim mixer owns, by hand."""
    mixer, inner = network.layers[layer].mixer, 32
    weights = [mixer.in_proj.weight[unit], mixer.in_proj.weight[inner + unit], mixer.out_proj.weight[:, unit]]
    for conv, x_proj, dt_proj in ((mixer.conv1d, mixer.x_proj, mixer.dt_proj), (mixer.conv1d_b, mixer.x_proj_b, mixer.dt_proj_b)):
        weights += [conv.weight[unit], x_proj.weight[:, unit], dt_proj.weight[unit]]
    return [weight.detach() for weight in weights]


def best(scores, count):
    return sorted(sorted(range(len(scores)), key=lambda unit: -scores[unit])[:count])


@pytest.mark.parametrize(("criterion", "power"), [("norm", 2), ("magnitude", 1)])
def test_the_units_of_the_largest_weights_stay(criterion, power):
    caught = Caught("vim")
    create_method("structured", ratio=0.75, criterion=criterion).begin(caught.view)
    for layer in range(2):
        parts = [weights_of_inner_unit(caught.network, layer, unit) for unit in range(32)]
        scores = [sum(float((part.abs() ** power).sum()) for part in weights) for weights in parts]
        assert caught.kept[f"layers.{layer}.mixer.d_inner"] == best(scores, 8)


def test_taylor_squares_what_the_loss_would_change_by_batch_and_sums():
    caught = Caught("vim")
    method = create_method("structured", ratio=0.75, criterion="taylor", batches=3)
    scores = {layer: [0.0] * 32 for layer in range(2)}
    method.begin(caught.view)
    for step in range(1, 4):
        assert not caught.structures
        caught.backward(step)
        for layer, sums in scores.items():
            for unit in range(32):
                change = 0.0
                for name, parameter in caught.network.layers[layer].mixer.named_parameters():
                    rows = [unit, 32 + unit] if name == "in_proj.weight" else [unit]
                    across = name in ("out_proj.weight", "x_proj.weight", "x_proj_b.weight")
                    index = (slice(None), rows) if across else (rows,)
                    change += float((parameter.detach()[index] * parameter.grad[index]).sum())
                sums[unit] += change**2
        progress = Progress(step=step, steps=9, steps_per_epoch=3)
        method.after_backward(caught.view, progress)
        method.after_step(caught.view, progress)
    assert {layer: caught.kept[f"layers.{layer}.mixer.d_inner"] for layer in scores} == {layer: best(sums, 8) for layer, sums in scores.items()}
    assert not caught.view.state
    method.after_backward(caught.view, replace(progress, step=4))
    method.after_step(caught.view, replace(progress, step=4))
    assert len(caught.structures) == 1


def test_states_with_the_most_votes_go():
    caught, asked = Caught("vim"), []
    order = torch.tensor([3.0, 1.0, 4.0, 0.5, 5.0, 9.0, 2.0, 6.0])
    names = [f"layers.{layer}.mixer.{group}" for layer in range(2) for group in ("d_state", "d_state_b")]
    caught.view.state_importance = lambda batches: asked.append(batches) or {name: order.roll(at).expand(5, 8) for at, name in enumerate(names)}
    create_method("structured", ratio=0.5, criterion="sparsessm", units=("state",), batches=3).begin(caught.view)
    assert asked == [3]
    assert caught.kept == {name: best(order.roll(at).tolist(), 4) for at, name in enumerate(names)}


def test_lots_depend_on_the_seed_alone():
    knobs = {"ratio": 0.5, "criterion": "random", "units": ("inner", "state")}
    kept = []
    for seed in (0, 0, 1):
        caught = Caught("vim", seed)
        create_method("structured", **knobs).begin(caught.view)
        kept.append(caught.kept)
    assert kept[0] == kept[1] != kept[2]
    assert {len(units) for units in kept[0].values()} == {16, 4}


@pytest.mark.parametrize(("criterion", "power"), [("norm", 2), ("magnitude", 1)])
def test_one_threshold_for_all_groups_compares_with_each_groups_mean(criterion, power):
    caught = Caught("mambavision")
    mlps = {name: module for name, module in caught.network.named_modules() if name.endswith(".mlp")}
    with torch.no_grad():
        for factor, mlp in enumerate(mlps.values(), 1):
            mlp.fc1.weight.mul_(10**factor)
            mlp.fc2.weight.mul_(10**factor)
            mlp.fc1.weight[0].mul_(30)  # skewed, so that the mean is neither the median nor the maximum
            mlp.fc1.bias.mul_(100)  # no weight of a layer
    create_method("structured", ratio=0.5, scope="global", criterion=criterion, units=("mlp",)).begin(caught.view)
    scores = {}
    for name, mlp in mlps.items():
        owned = (mlp.fc1.weight.detach(), mlp.fc2.weight.detach().T)
        sizes = sum((weight.abs().double() ** power).sum(1) for weight in owned) ** (1 / power)
        scores |= {(f"{name}.hidden", unit): float(size / sizes.mean()) for unit, size in enumerate(sizes)}
    ranking = sorted(scores, key=scores.__getitem__)
    assert {(name, unit) for name, units in caught.kept.items() for unit in units} == set(ranking[len(ranking) // 2 :])
    assert len({len(units) for units in caught.kept.values()}) > 1, "one threshold is not one share for each group"


def test_groups_of_other_kinds_are_not_touched():
    caught = Caught("mambavision")
    create_method("structured", ratio=0.5, units=("heads",)).begin(caught.view)
    assert {name.rpartition(".")[2] for name in caught.structures[0].counts} == {"heads"}
    assert caught.structures[0].summary["levels.2.blocks.1.mixer.heads"] == (2, 4)


def test_it_starts_from_the_dense_training_that_others_share():
    method, budget = create_method("structured", ratio=0.5), Budget(epochs=3, finetune_epochs=2)
    assert method.stages(budget)[0] == create_method("magnitude", sparsity=0.5).stages(budget)[0]
    assert [stage.epochs for stage in method.stages(Budget(epochs=3, finetune_epochs=0))] == [3, 0]
    taylor = create_method("structured", ratio=0.5, criterion="taylor", batches=2)
    assert (taylor.calibration_batches, method.calibration_batches) == (2, 0)
    assert [stage.epochs for stage in taylor.stages(Budget(epochs=3, finetune_epochs=0))] == [3, 0]


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"ratio": 1.0}, "ratio must be in"),
        ({"ratio": 0.5, "units": ("channels",)}, "unknown kind of unit 'channels'"),
        ({"ratio": 0.5, "batches": 0}, "batches must be"),
        ({"ratio": 0.5, "criterion": "sparsessm"}, r"criterion sparsessm scores states alone: set units: \[state\], got inner, heads, mlp, conv"),
        ({"ratio": 0.5, "criterion": "sparsessm", "units": ("state", "inner")}, "got state, inner"),
    ],
)
def test_impossible_knobs_are_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        create_method("structured", **knobs)


def test_its_label_says_what_the_ratio_is_of():
    assert method_label(create_method("structured", ratio=0.5, units=("inner", "mlp"))) == "structured(ratio=0.5, units=inner+mlp)"
