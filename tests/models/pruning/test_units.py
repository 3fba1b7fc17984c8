import pytest
import torch
from torch import nn

from models.pruning.structure import find_groups, remove
from models.pruning.units import KINDS, UNITS, Units, check_kinds, units_of
from tests.support.removal import VARIANTS, small_network

SUFFIXES = {
    "vim": {"d_inner", "d_state", "d_state_b"},
    "vim+mobilenet": {"d_inner", "d_state", "d_state_b", "hidden"},
    "vim, four paths": {"d_inner", "d_state_0", "d_state_1", "d_state_2", "d_state_3"},
    "mambavision": {"d_inner_x", "d_inner_z", "d_state", "heads", "hidden"},
    "vmamba, wider": {"d_inner", "d_state", "hidden"},
    "vssd": {"heads", "hidden", "d_state"},
    "vit": {"heads", "hidden"},
    "mambaout": {"hidden", "convolved"},
}


@pytest.mark.parametrize("variant", SUFFIXES)
def test_the_groups_of_a_network_are_named_by_where_they_are(variant):
    network = small_network(variant)
    groups = find_groups(network, 32)
    assert {group.name.rpartition(".")[2] for group in groups} == SUFFIXES[variant]
    assert [(group.name, group.count) for group in groups] == [(units.name, units.count) for units in units_of(network)]


def test_every_kind_of_units_is_found_somewhere():
    kinds = {units.kind for variant in VARIANTS for units in units_of(small_network(variant))}
    assert kinds == set(KINDS)


def test_kinds_of_units_are_checked_by_name():
    with pytest.raises(ValueError, match="unknown kind of unit 'head'; did you mean 'heads'.* Valid units: inner, heads"):
        check_kinds(["head"])
    with pytest.raises(ValueError, match="each once"):
        check_kinds(["inner", "inner"])


def test_a_kind_may_be_asked_for_alone():
    network = small_network("mambavision")
    every = units_of(network)
    assert units_of(network, ("heads", "mlp")) == tuple(units for units in every if units.kind in ("heads", "mlp"))
    assert {units.kind for units in every} == {"inner", "heads", "mlp", "conv", "state"}


def test_a_group_of_a_single_unit_has_nothing_to_remove():
    heads = [units.name for units in units_of(small_network("mambavision"), ("heads",))]
    assert heads == ["levels.2.blocks.1.mixer.heads", "levels.3.blocks.1.mixer.heads"]
    assert all(units.count > 1 for variant in VARIANTS for units in units_of(small_network(variant)))


def test_a_unit_takes_the_indices_of_its_width_from_the_first_unit_on():
    units = Units(name="heads", kind="heads", root=None, side="in", consumer=None, count=4, first=10, width=3)
    assert units.indices([0, 2]) == [10, 11, 12, 16, 17, 18]


def test_every_row_names_a_class_that_a_network_has():
    present = {f"{type(module).__module__}.{type(module).__name__}" for variant in VARIANTS for module in small_network(variant).modules()}
    assert set(UNITS) <= present


class Declaring(nn.Module):
    """As a plug-in writes it: one hidden layer, whose units it declares itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 8), nn.Linear(8, 10)

    def forward(self, images):
        return self.fc2(self.fc1(images.mean((2, 3))).relu())

    def prunable_units(self):
        yield Units(name="hidden", kind="mlp", root=self.fc2, side="in", consumer=self.fc2, count=self.fc2.in_features)


def test_a_module_declares_its_own_units_which_are_removed_as_ours_are():
    network, images = Declaring(), torch.rand(2, 3, 8, 8)
    (group,) = find_groups(network, 8)
    assert (group.name, group.kind, group.count) == ("hidden", "mlp", 8)
    kept = [0, 3, 4, 7]
    mean = images.mean((2, 3))
    expected = network.fc1(mean).relu()[:, kept] @ network.fc2.weight[:, kept].T + network.fc2.bias
    remove(network, (group,), {"hidden": kept})
    assert network.fc1.weight.shape == (4, 3) and network.fc2.weight.shape == (10, 4)
    torch.testing.assert_close(network(images), expected)
