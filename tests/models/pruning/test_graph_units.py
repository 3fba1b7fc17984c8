"""The units that the dependency graph shows in timm's networks: their removal is exact, and what is no unit has its reason."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from models.pruning.graph_units import graph_units
from models.pruning.registry import create_method
from models.pruning.structure import Group, find_groups, remove
from models.pruning.units import units_of
from models.registry import create_model
from tests.support.removal import moved, silence

NETWORKS: dict[str, tuple[dict[str, object], set[str]]] = {  # of each family a small network, and the kinds of its units
    "timm/resnet18": ({"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "stem_width": 8}, {"conv"}),
    "timm/test_vit": ({}, {"heads", "mlp"}),
    "timm/swin_tiny_patch4_window7_224": ({"depths": [1, 1], "embed_dim": 8, "num_heads": [2, 2], "window_size": 4}, {"mlp"}),
    "timm/test_convnext": ({}, {"mlp"}),
    "timm/test_efficientnet": ({}, {"conv", "se"}),
    "timm/test_byobnet": ({}, {"conv", "se"}),
    "timm/test_mambaout": ({}, {"inner", "conv", "mlp"}),
}


def network_of(name: str, options: dict[str, object] | None = None) -> nn.Module:
    torch.manual_seed(0)
    network = create_model(name, 10, 64, **(NETWORKS[name][0] if options is None else options))
    return moved(network)


def half(groups: Sequence[Group]) -> dict[str, list[int]]:
    generator = torch.Generator().manual_seed(1)
    return {group.name: sorted(torch.randperm(group.count, generator=generator)[: max(1, group.count // 2)].tolist()) for group in groups}


@pytest.mark.parametrize(("name", "kinds"), [(name, kinds) for name, (_, kinds) in NETWORKS.items()])
def test_the_smaller_network_computes_what_the_whole_one_does_with_the_units_at_zero(name: str, kinds: set[str]) -> None:
    whole = network_of(name)
    groups = find_groups(whole, 64)
    kept = half(groups)
    whole = whole.double()
    masked, smaller = copy.deepcopy(whole), copy.deepcopy(whole)
    silence(masked, groups, kept)
    remove(smaller, groups, kept)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits, masked_logits, smaller_logits = (network(images) for network in (whole, masked, smaller))
    assert torch.allclose(smaller_logits, masked_logits, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(smaller_logits, logits, rtol=1e-3)
    assert {units.kind for units in units_of(whole)} == kinds
    assert sum(map(torch.numel, smaller.parameters())) < 0.95 * sum(map(torch.numel, whole.parameters()))


def test_the_group_of_a_layer_is_torch_prunings_own() -> None:
    import torch_pruning

    name, layer, dropped = "timm/test_efficientnet", "blocks.1.0.conv_exp", [0, 3, 5]
    ours, theirs = network_of(name), network_of(name)
    group = next(group for group in find_groups(ours, 64) if group.name == f"{layer}.out")
    remove(ours, [group], {group.name: [unit for unit in range(group.count) if unit not in dropped]})
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, torch.zeros(1, 3, 64, 64))
    graph.get_pruning_group(theirs.get_submodule(layer), torch_pruning.prune_conv_out_channels, dropped).prune()
    assert {key: tuple(tensor.shape) for key, tensor in ours.state_dict().items()} == {
        key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()
    }
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in ours.state_dict().items())


def test_the_residual_stream_and_grouped_convolutions_are_no_units() -> None:
    with torch.device("meta"):
        resnet, resnext = create_model("timm/resnet18", 10, 64), create_model("timm/resnext26ts", 10, 64)
    assert {units.root for units in graph_units(resnet).units} == {f"layer{stage}.{block}.conv1" for stage in range(1, 5) for block in range(2)}
    assert graph_units(resnet).why_none["a sum, such as the residual stream"] == 12
    assert graph_units(resnext).why_none["a grouped convolution"] > 0


def test_a_network_without_units_is_refused_with_the_reasons() -> None:
    with torch.device("meta"):
        network = create_model("timm/regnetx_002", 10, 64)
    with pytest.raises(ValueError, match=r"there is nothing to remove; the channels of timm/regnetx_002 meet a grouped convolution \(26 layers\), "):
        create_method("structured", ratio=0.5, units=("mlp",)).check(network)


def test_channels_into_a_standardised_convolution_are_no_units() -> None:
    """Without some of its inputs it would compute with another mean and deviation of its weights."""
    with torch.device("meta"):
        network = create_model("timm/test_nfnet", 10, 64)
    found = graph_units(network)
    assert {units.kind for units in found.units} == {"se"} and found.why_none["a standardised convolution"] > 0


def test_channels_that_go_through_windows_are_judged_without_following_each_into_every_window() -> None:
    """torch-pruning follows them through each cut into windows, and takes minutes for this network of eight blocks."""
    with torch.device("meta"):
        found = graph_units(create_model("timm/test_maxvit", 10, 64))
    assert {units.kind for units in found.units} == {"conv", "mlp", "se"}
    assert found.why_none == {"a sum, such as the residual stream": 24, "attention": 8, "the logits": 1}


def test_channels_that_are_cut_to_sizes_of_the_networks_own_are_no_units() -> None:
    """Res2Net's: the smaller network would cut elsewhere."""
    with torch.device("meta"):
        found = graph_units(create_model("timm/res2net50_14w_8s", 10, 64, layers=[1, 1, 1, 1]))
    assert [units.root for units in found.units] == ["conv1"] and found.why_none["a cut to stored sizes"] == 32


def test_a_network_that_cannot_be_followed_is_refused_by_name() -> None:
    with torch.device("meta"):
        network = create_model("timm/shvit_s1", 10, 64)
    with pytest.raises(ValueError, match="torch-pruning cannot follow the channels of timm/shvit_s1: ZeroDivisionError: "):
        create_method("structured", ratio=0.5).check(network)
