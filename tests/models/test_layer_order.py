"""The order of layers against timm's own groups."""

import re

import pytest
import torch
from torch import nn

from models.layer_order import layer_numbers, layer_scales, layers_of
from models.registry import create_model
from models.torchvision_shim import load_timm

load_timm()
from timm.models._manipulate import group_parameters  # noqa: E402
from timm.optim._param_groups import param_groups_layer_decay  # noqa: E402

# As timm's models say it, for the networks that are not timm's.
VIM = {"stem": r"^cls_token|pos_embed|patch_embed", "blocks": [(r"^layers\.(\d+)", None), (r"^norm_f", (99999,))]}


def meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, 10)


@pytest.mark.parametrize("name", ["vit_tiny", "vit_micro", "mambaout_femto", "vim_tiny"])
def test_every_parameter_is_in_the_layer_that_timm_puts_it_in(name: str) -> None:
    network = meta(name)
    matcher = network.group_matcher() if hasattr(network, "group_matcher") else VIM
    assert layer_numbers(key for key, _ in network.named_parameters()) == group_parameters(network, matcher, reverse=True)


@pytest.mark.parametrize("name", ["vit_micro", "mambaout_micro"])
def test_rates_fall_as_timms_param_groups_layer_decay(name: str) -> None:
    network, expected = create_model(name, 10), {}
    named = {id(parameter): key for key, parameter in network.named_parameters()}
    for group in param_groups_layer_decay(network, layer_decay=0.7):
        expected |= {named[id(parameter)]: group["lr_scale"] for parameter in group["params"]}
    assert layer_scales(network, 0.7) == pytest.approx(expected)


def test_mambavisions_downsampling_belongs_to_the_block_before_it() -> None:
    numbers = layer_numbers(key for key, _ in meta("mambavision_t").named_parameters())
    depths = (1, 3, 8, 4)
    assert {number for key, number in numbers.items() if key.startswith("patch_embed")} == {0}
    for level, depth in enumerate(depths):
        for block in range(depth):
            own = {number for key, number in numbers.items() if key.startswith(f"levels.{level}.blocks.{block}.")}
            assert own == {sum(depths[:level]) + block + 1}
        beside = {number for key, number in numbers.items() if key.startswith(f"levels.{level}.downsample.")}
        assert beside <= {sum(depths[: level + 1])}
    assert {number for key, number in numbers.items() if re.match(r"head\.", key)} == {sum(depths) + 1}


def test_a_network_without_numbered_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="whose blocks have numbers, such as layers.0 and layers.1"):
        layer_scales(nn.Sequential(nn.Linear(2, 2)), 0.5)


def test_timms_networks_have_timms_order() -> None:
    with torch.device("meta"):
        network = create_model("timm/test_efficientnet", 10, 32)
    from timm.models import group_parameters

    assert layers_of(network) == group_parameters(network, network.group_matcher(), reverse=True)
    assert layer_scales(network, 0.5)["classifier.weight"] == 1.0
