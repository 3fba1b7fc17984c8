import pytest
import torch

from models.pruning.surrogates import DIMENSIONS, Slices, bare_parameters, scan_channels, scan_states, surrogate
from models.pruning.units import units_of
from tests.support.removal import VARIANTS, small_network


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("axis", ["channels", "states"])
def test_a_surrogate_runs_without_memory_and_leaves_the_network_alone(variant, axis):
    network = small_network(variant)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    twin, states = surrogate(network, axis)
    assert twin(torch.zeros(1, 3, 32, 32, device="meta")).shape == (1, 10)
    assert all(parameter.is_meta for parameter in twin.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert len(states) == (len(units_of(network, ("state",))) if axis == "states" else 0)


SHAPES = {"u": (1, 4, 6), "delta": (1, 4, 6), "A": (4, 3), "B": (1, 3, 6), "C": (1, 3, 6), "D": (4,)}


def test_a_channel_is_coupled_with_its_row_of_a_and_its_d():
    inputs = {name: torch.ones(shape, requires_grad=True) for name, shape in (SHAPES | {"z": (1, 4, 6)}).items()}
    scan_channels(**inputs).sum().backward()
    assert {name for name, tensor in inputs.items() if tensor.grad is not None} == {"u", "delta", "A", "D", "z"}


def test_a_state_is_coupled_with_its_column_of_a_and_its_rows_of_b_and_c():
    states = []
    inputs = {name: torch.ones(shape, requires_grad=True) for name, shape in SHAPES.items()}
    y = scan_states(states, **inputs)
    (coupling,) = states
    coupling.sum().backward()
    assert torch.equal(y, inputs["u"]) and coupling.shape == (1, 3, 6)
    assert {name for name, tensor in inputs.items() if tensor.grad is not None} == {"A", "B", "C"}


def test_bare_parameters_have_the_dimension_of_their_axis():
    network = small_network("vim")
    mixer = network.layers[0].mixer
    dimensions = {id(parameter): dimension for parameter, dimension in bare_parameters(network, "states")}
    assert (dimensions[id(mixer.A_log)], dimensions[id(mixer.A_b_log)]) == (1, 1) and id(mixer.D) not in dimensions
    assert {id(mixer.A_log), id(mixer.D)} <= {id(parameter) for parameter, _ in bare_parameters(network, "channels")}


def test_every_row_of_the_table_is_a_parameter_of_a_network():
    last = {name.rpartition(".")[2] for variant in VARIANTS for name, _ in small_network(variant).named_parameters()}
    assert set(DIMENSIONS) <= last


def test_a_split_within_the_mode_is_made_of_slices():
    x = torch.arange(12.0).view(2, 6).requires_grad_()
    with Slices():
        parts = x.split([1, 2, 3], dim=-1)
    assert [part.tolist() for part in parts] == [part.tolist() for part in x.split([1, 2, 3], dim=-1)]
    assert {type(part.grad_fn).__name__ for part in parts} == {"SliceBackward0"}
