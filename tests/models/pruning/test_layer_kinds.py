"""Each parameter of timm's networks falls into the group of its layer's kind."""

import pytest
import torch

from models.pruning.registry import create_method
from models.pruning.scope import DEFAULT_GROUPS, parameter_groups, prunable_names
from models.registry import create_model

GROUPS = {
    "timm/resnet18": {
        "conv1.weight": "patch_embed",
        "bn1.weight": "norms",
        "layer1.0.conv1.weight": "conv",
        "layer2.0.downsample.0.weight": "downsample",
        "fc.weight": "head",
        "fc.bias": "biases",
    },
    "timm/test_efficientnet": {"conv_stem.weight": "patch_embed", "conv_head.weight": "conv", "classifier.weight": "head"},
    "timm/mobilenetv3_small_050": {"blocks.0.0.conv_dw.weight": "conv", "blocks.0.0.se.conv_reduce.weight": "se"},
    "timm/test_vit": {
        "cls_token": "embeddings",
        "pos_embed": "embeddings",
        "patch_embed.proj.weight": "patch_embed",
        "blocks.0.attn.qkv.weight": "attention",
        "blocks.0.mlp.fc1.weight": "mlp",
        "head.weight": "head",
    },
    "timm/test_convnext": {"stem.0.weight": "patch_embed", "stages.1.downsample.1.weight": "downsample", "head.fc.weight": "head"},
    "timm/regnety_002": {"s1.b1.conv1.conv.weight": "conv", "s1.b1.se.fc1.weight": "se", "s1.b1.downsample.conv.weight": "downsample"},
    "timm/test_maxvit": {"stages.0.blocks.0.attn_grid.mlp.fc2.weight": "mlp", "stages.0.blocks.0.attn_grid.attn.qkv.weight": "attention"},
    "timm/poolformer_s12": {"stages.0.blocks.0.mlp.fc1.weight": "mlp", "stages.0.blocks.0.layer_scale1.scale": "state"},
}


@pytest.mark.parametrize(("name", "groups"), GROUPS.items())
def test_a_parameter_falls_into_the_group_of_its_layers_kind(name: str, groups: dict[str, str]) -> None:
    with torch.device("meta"):
        network = create_model(name, 10, 32)
    present = parameter_groups(network)
    assert {parameter: present[parameter] for parameter in groups} == groups
    dense = {"biases", "norms", "embeddings", "state"}
    assert set(prunable_names(network)) == {parameter for parameter, group in present.items() if group not in dense}
    assert set(present.values()) - dense <= set(DEFAULT_GROUPS) - {"other"}


def test_a_zero_in_a_standardised_convolution_is_none_so_that_masks_are_refused_there() -> None:
    """NFNet's: the weight that its convolution computes with is not zero where the parameter is."""
    with torch.device("meta"):
        network = create_model("timm/test_nfnet", 10, 32)
    with pytest.raises(
        ValueError, match="25 convolutions such as 'stem.conv1.weight' standardise.*leave out the groups patch_embed, downsample, conv"
    ):
        create_method("magnitude", sparsity=0.5).check(network)
    create_method("magnitude", sparsity=0.5, groups=("se", "head")).check(network)
    convolution = type(network.get_submodule("stem.conv1"))(3, 2, 3)
    with torch.no_grad():
        convolution.weight[0, 0] = 0.0
        pixels = torch.zeros(1, 3, 8, 8)
        pixels[:, 0] = 1.0
        assert convolution(pixels)[0, 0].sub(convolution.bias[0]).abs().max() > 1e-3
