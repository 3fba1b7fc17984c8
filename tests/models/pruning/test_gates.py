import copy

import pytest
import torch

from models.pruning.early_bird import EarlyBird
from models.pruning.gates import Gate, fold_gates, insert_gates
from models.pruning.structure import find_groups, remove
from models.pruning.units import units_of
from tests.support.removal import VARIANTS, images, small_network


def with_gates(network):
    """The groups that can have a gate: all but the states of VSSD."""
    consumers = {units.name: units.consumer for units in units_of(network)}
    return [group for group in find_groups(network, 32) if consumers[group.name] is not None]


def gated_copy(network, seed=5):
    """A copy with gates, all of them away from 1, and the gates by group."""
    copied = copy.deepcopy(network)
    gates = insert_gates(copied, with_gates(copied))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in copied.modules():
            if isinstance(module, Gate):
                module.scale.copy_(torch.rand(module.scale.shape, generator=generator) + 0.5)
    return copied, gates


def computed(network):
    with torch.no_grad():
        return network.eval()(images())


@pytest.mark.parametrize("variant", VARIANTS)
def test_folding_leaves_the_official_names_and_the_same_outputs(variant):
    network = small_network(variant)
    gated, gates = gated_copy(network)
    before = computed(gated)
    assert not torch.allclose(before, computed(network), atol=1e-2)
    fold_gates(gated)
    assert list(gated.state_dict()) == list(network.state_dict())
    assert [type(module) for module in gated.modules()] == [type(module) for module in network.modules()]
    assert torch.allclose(computed(gated), before, rtol=1e-4, atol=1e-5)
    assert gates


def test_gates_of_one_change_nothing():
    network = small_network("mambavision+attention_pool")
    before = computed(network)
    insert_gates(network, find_groups(network, 32))
    assert torch.equal(computed(network), before)


def test_every_group_has_the_gate_that_scales_its_units_and_a_norm_serves_where_there_is_one():
    network = small_network("mambavision")
    groups = find_groups(network, 32)
    gates = insert_gates(network, groups)
    assert [*gates] == [group.name for group in groups]
    assert all(network.get_parameter(gates[group.name]).shape == (group.count,) for group in groups)
    assert gates["levels.0.blocks.0.hidden"] == "levels.0.blocks.0.norm1.weight"
    assert gates["patch_embed.hidden"] == "patch_embed.conv_down.1.weight"
    assert gates["levels.2.blocks.0.mixer.d_inner_z"] == "levels.2.blocks.0.mixer.out_proj.parametrizations.weight.1.scale"
    assert gates["levels.2.blocks.0.mixer.d_state"] == "levels.2.blocks.0.mixer.x_proj.parametrizations.weight.0.scale"


def test_a_gate_of_zero_silences_its_unit():
    network = small_network("mambavision")
    gates = insert_gates(network, [group for group in find_groups(network, 32) if group.kind == "heads"])
    with torch.no_grad():
        network.get_parameter(gates["levels.2.blocks.1.mixer.heads"])[2] = 0.0
        without = computed(network)
        network.levels[2].blocks[1].mixer.qkv.weight[64 + 16 : 64 + 24].normal_()  # the values of head 2
        assert torch.equal(computed(network), without)


@pytest.mark.parametrize("variant", ["vim", "vim+s4", "vim+s5", "mambavision"])
def test_a_gate_of_zero_takes_a_state_out_as_removal_does(variant):
    network = small_network(variant)
    groups = [group for group in find_groups(network, 32) if group.kind == "state"]
    gated = copy.deepcopy(network)
    with torch.no_grad():
        for gate in insert_gates(gated, groups).values():
            gated.get_parameter(gate)[1] = 0.0
    remove(network, groups, {group.name: [unit for unit in range(group.count) if unit != 1] for group in groups})
    assert groups and torch.allclose(computed(gated), computed(network), rtol=1e-4, atol=1e-5)


def test_a_copy_is_not_touched_when_gates_are_folded():
    network, _ = gated_copy(small_network("mambavision"))
    before, copied = computed(network), copy.deepcopy(network)
    fold_gates(copied)
    assert torch.equal(computed(network), before)


def test_gates_learn():
    network = small_network("vim").train()
    gates = insert_gates(network, [group for group in find_groups(network, 32) if group.kind == "inner"])
    network(images()).square().sum().backward()
    assert all(network.get_parameter(gate).grad.count_nonzero() == 32 for gate in gates.values())


def test_states_that_no_weight_scales_are_refused_before_anything_trains():
    network = small_network("vssd")
    reason = "layers.0.blocks.0.attn.d_state: no weight carries all .*leave state out of units, or remove them with the method structured"
    with pytest.raises(ValueError, match=reason):
        EarlyBird(ratio=0.3, units=("heads", "state")).check(network)
    with pytest.raises(ValueError, match=reason):
        insert_gates(network, [group for group in find_groups(network, 32) if group.kind == "state"])
