"""The controls are timm's networks, built from our options."""

import pytest
import torch

from models.configs import MambaOutConfig, ViTConfig
from models.registry import create_model
from models.timm_controls import build_mambaout, build_vit
from models.torchvision_shim import load_timm


@pytest.mark.parametrize(
    ("name", "timms", "parameters"),
    [
        ("vit_tiny", "vit_tiny_patch16_224", 5_717_416),
        ("mambaout_femto", "mambaout_femto", 7_304_536),  # 7.3, 9.1, 26.5, 48.5 and 84.8 million in the paper
        ("mambaout_kobe", "mambaout_kobe", 9_141_208),
        ("mambaout_tiny", "mambaout_tiny", 26_545_096),
        ("mambaout_small", "mambaout_small", 48_488_072),
        ("mambaout_base", "mambaout_base", 84_813_092),
    ],
)
def test_a_control_is_timms_network_of_this_name(name: str, timms: str, parameters: int) -> None:
    with torch.device("meta"):
        ours, theirs = create_model(name), load_timm().create_model(timms)
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    assert sum(parameter.numel() for parameter in ours.parameters()) == parameters


def test_options_reach_timms_vit() -> None:
    vit = build_vit(ViTConfig(patch_size=4, dim=16, depth=2, heads=2, drop_path=0.5), img_size=8, num_classes=3)
    assert vit(torch.randn(2, 3, 8, 8)).shape == (2, 3)
    assert (len(vit.blocks), vit.blocks[0].attn.num_heads, vit.embed_dim, vit.pos_embed.shape[1]) == (2, 2, 16, 5)
    assert vit.blocks[1].drop_path1.drop_prob == 0.5


def test_options_reach_timms_mambaout() -> None:
    network = build_mambaout(MambaOutConfig(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)), num_classes=3)
    assert network(torch.randn(2, 3, 32, 40)).shape == (2, 3)
    assert [len(stage.blocks) for stage in network.stages] == [1, 1, 2, 1]
