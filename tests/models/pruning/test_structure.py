import copy

import pytest
import torch
from torch import nn

from models.pruning.registry import create_method
from models.pruning.structure import Structure, composed, find_groups, remove, restructure
from models.registry import create_model
from tests.support.removal import SMALLER, VARIANTS, images, moved, silence, small_network


def drawn(groups, seed=1):
    """Some units of every group, at least one: of the first group one alone, of the last all."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for number, group in enumerate(groups):
        count = 1 if number == 0 else int(torch.randint(1, group.count, (1,), generator=generator))
        kept[group.name] = sorted(torch.randperm(group.count, generator=generator)[:count].tolist())
    return kept | {groups[-1].name: list(range(groups[-1].count))}


def first_half(groups, *kinds):
    return {group.name: list(range(group.count // 2)) for group in groups if group.kind in kinds}


def shapes(network: nn.Module):
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_smaller_network_computes_what_the_masked_one_does(variant):
    whole = small_network(variant)
    groups = find_groups(whole, 32)
    kept = drawn(groups)
    masked, smaller = copy.deepcopy(whole), copy.deepcopy(whole)
    silence(masked, groups, kept)
    remove(smaller, groups, kept)
    with torch.no_grad():
        logits, masked_logits, smaller_logits = (network(images()) for network in (whole, masked, smaller))
    assert torch.allclose(smaller_logits, masked_logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(smaller_logits, logits, rtol=1e-2, atol=1e-2)
    assert sum(map(torch.numel, smaller.parameters())) < 0.9 * sum(map(torch.numel, whole.parameters()))


@pytest.mark.parametrize(
    ("name", "kind", "options", "narrower"),
    [
        ("vim_micro", "inner", {}, {"expand": 1}),
        ("vim_micro", "state", {}, {"d_state": 4}),
        ("vim_micro", "state", {"s4": {"d_state": 8}}, {"s4": {"d_state": 4}}),
        ("vim_micro", "state", {"s5": {"d_state": 8}}, {"s5": {"d_state": 4}}),
        ("vim_micro", "inner", {"s5": {"d_state": 8}}, {"s5": {"d_state": 8}, "expand": 1}),
        ("vim_micro", "conv", {"mobilenet": {"expand": 2}}, {"mobilenet": {"expand": 1}}),
        ("vim_micro", "se", {"se": {"ratio": 4}}, {"se": {"ratio": 8}}),
        ("mambavision_micro", "mlp", {}, {"mlp_ratio": 2.0}),
        ("mambavision_micro", "state", {}, {"d_state": 4}),
        ("vmamba_micro", "inner", {"expand": 2}, {"expand": 1}),
        ("vmamba_micro", "inner", {"expand": 2, "s4": {}}, {"expand": 1, "s4": {}}),
        ("vmamba_micro", "state", {"d_state": 4}, {"d_state": 2}),
        ("vmamba_micro", "mlp", {}, {"mlp_ratio": 2.0}),
        ("vssd_micro_32", "mlp", {}, {"mlp_ratio": 2.0}),
        ("vssd_micro_32", "state", {"d_state": 4}, {"d_state": 2}),
    ],
)
def test_half_of_the_units_is_the_architecture_of_half_the_size(name, kind, options, narrower):
    whole = create_model(name, 10, 32, **SMALLER[name], **options)
    groups = find_groups(whole, 32)
    remove(whole, groups, first_half(groups, kind))
    assert shapes(whole) == shapes(create_model(name, 10, 32, **SMALLER[name], **options | narrower))


def test_heads_take_their_queries_keys_and_values_along():
    network = small_network("mambavision")
    attention = network.levels[2].blocks[1].mixer
    qkv = attention.qkv.weight.detach().clone()
    groups = find_groups(network, 32)
    remove(network, groups, {"levels.2.blocks.1.mixer.heads": [0, 3]})
    inner, rows = 32, [*range(8), *range(24, 32)]  # four heads of eight
    assert torch.equal(attention.qkv.weight, qkv[rows + [inner + row for row in rows] + [2 * inner + row for row in rows]])
    assert (attention.qkv.out_features, attention.proj.in_features) == (48, 16)


def test_a_state_takes_its_column_of_a_and_its_rows_of_b_and_c_along():
    network = small_network("vim")
    mixer = network.layers[0].mixer
    rows, columns = mixer.x_proj_b.weight.detach().clone(), mixer.A_b_log.detach().clone()
    remove(network, find_groups(network, 32), {"layers.0.mixer.d_state_b": [2, 7]})
    rank, states = mixer.dt_proj_b.in_features, 8
    assert torch.equal(mixer.x_proj_b.weight, rows[[*range(rank), rank + 2, rank + 7, rank + states + 2, rank + states + 7]])
    assert torch.equal(mixer.A_b_log, columns[:, [2, 7]])
    assert mixer.A_log.shape[1] == 8


def test_channels_go_in_both_halves_of_a_mixer_apart():
    network = small_network("mambavision")
    mixer = network.levels[2].blocks[0].mixer
    out = mixer.out_proj.weight.detach().clone()
    remove(network, find_groups(network, 32), {"levels.2.blocks.0.mixer.d_inner_x": [1], "levels.2.blocks.0.mixer.d_inner_z": [0, 5, 15]})
    assert torch.equal(mixer.out_proj.weight, out[:, [1, 16, 21, 31]])


def test_statistics_of_a_norm_go_with_its_channels():
    network = small_network("mambavision")
    norm = network.levels[0].blocks[0].norm1
    mean = norm.running_mean.clone()
    remove(network, find_groups(network, 32), {"levels.0.blocks.0.hidden": [3, 4]})
    assert torch.equal(norm.running_mean, mean[[3, 4]]) and norm.num_features == 2


def test_the_stream_between_blocks_keeps_its_width():
    network = small_network("mambavision")
    groups = find_groups(network, 32)
    owned = {(part.parameter, part.dimension) for group in groups for part in group.owned}
    assert not owned & {("levels.2.blocks.0.mixer.out_proj.weight", 0), ("levels.2.blocks.0.mlp.fc2.weight", 0), ("head.weight", 1)}


def test_a_smaller_network_trains():
    network = moved(create_model("mambavision_micro", 10, 32, **SMALLER["mambavision_micro"], convnext=True)).train()
    groups = find_groups(network, 32)
    remove(network, groups, first_half(groups, "inner", "heads", "mlp", "conv", "state"))
    network(images()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"layers.0.mixer.d_outer": [0]}, "no units 'layers.0.mixer.d_outer'; it has layers.0.mixer.d_inner"),
        ({"layers.0.mixer.d_inner": []}, "at least one of units 0 to 31 must be kept"),
        ({"layers.0.mixer.d_inner": [0, 32]}, r"got \[0, 32\]"),
        ({"layers.0.mixer.d_inner": [1, 0]}, "in order"),
        ({"layers.0.mixer.d_inner": [0, 0]}, "each once"),
    ],
)
def test_what_cannot_be_kept_is_refused(kept, said):
    network = small_network("vim")
    with pytest.raises(ValueError, match=said):
        remove(network, find_groups(network, 32), kept)


@pytest.mark.parametrize("variant", ["vim", "mambavision+se", "vmamba", "vssd", "vit"])
def test_two_removals_are_one_from_the_whole_network(variant):
    twice = small_network(variant)
    once = copy.deepcopy(twice)
    parts = []
    for seed in (1, 2):
        groups = find_groups(twice, 32)
        parts.append(Structure(kept=drawn(groups[seed % 2 :], seed), counts={group.name: group.count for group in groups}))
        remove(twice, groups, parts[-1].kept)
    whole = find_groups(once, 32)
    both = composed(*parts)
    remove(once, whole, both.kept)
    assert shapes(twice) == shapes(once) and both.counts == {group.name: group.count for group in whole}
    assert all(torch.equal(first, second) for first, second in zip(twice.state_dict().values(), once.state_dict().values(), strict=True))
    with torch.no_grad():
        assert torch.equal(twice(images()), once(images()))


@pytest.mark.parametrize(("variant", "block"), [("vim", "layers.1"), ("vit", "blocks.0"), ("mambavision", "levels.2.blocks.0")])
def test_blocks_go_before_and_after_tokens_merge_alike(variant, block):
    first = small_network(variant)
    second = copy.deepcopy(first)
    merged = Structure(kept={}, counts={}, merging=create_method("token_merging", r=2, layers=(1,)).merging(first))
    shorter = Structure(kept={}, counts={block: 1}, blocks=(block,))
    for structure in (merged, shorter):
        restructure(first, structure, 32)
    restructure(second, composed(shorter, merged), 32)
    assert shapes(first) == shapes(second)
    with torch.no_grad():
        assert torch.equal(first(images()), second(images()))
