"""Norms of inputs against a loop over every product that a layer forms."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.layers import DeltaProjection, TokenConv1d
from models.pruning.inputs import InputNorms, check_inputs
from models.pruning.registry import create_method
from models.pruning.scope import prunable_names
from models.registry import create_model
from models.vmamba import DirectionProjection


def norms_of(layer: nn.Module, *calls: tuple[torch.Tensor, dict[str, bool]]) -> torch.Tensor:
    """The norms that a layer's own calls give."""
    with InputNorms(nn.ModuleDict({"layer": layer}), ["layer.weight"]) as inputs, torch.no_grad():
        for x, options in calls:
            layer(x, **options)
    return inputs.norms(lambda tensor: tensor)["layer.weight"].expand_as(layer.weight)


def test_a_linear_layer_has_the_norm_of_each_feature_over_samples_and_tokens():
    x = torch.randn(3, 5, 8)
    for layer in (nn.Linear(8, 4), DeltaProjection(8, 4)):
        for row in norms_of(layer, (x, {})):
            torch.testing.assert_close(row, torch.stack([x[:, :, feature].norm() for feature in range(8)]))


def test_calls_add_up():
    layer, x = nn.Linear(8, 4), torch.randn(6, 8)
    torch.testing.assert_close(norms_of(layer, (x[:2], {}), (x[2:], {})), norms_of(layer, (x, {})))


@pytest.mark.parametrize(("groups", "stride", "padding"), [(1, 1, 1), (1, 2, 0), (2, 1, 1), (4, 1, 1)])
def test_a_convolution_has_one_for_each_channel_and_place_of_the_kernel(groups, stride, padding):
    layer, x = nn.Conv2d(4, 8, 3, stride, padding, groups=groups), torch.randn(2, 4, 6, 5)
    norms, padded = norms_of(layer, (x, {})), F.pad(x, (padding,) * 4)
    for out in range(8):
        for inner in range(4 // groups):
            channel = out // (8 // groups) * (4 // groups) + inner
            for row in range(3):
                for column in range(3):
                    met = padded[:, channel, row : padded.shape[2] - 2 + row : stride, column : padded.shape[3] - 2 + column : stride]
                    torch.testing.assert_close(norms[out, inner, row, column], met.norm())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_a_convolution_over_tokens_has_one_for_each_tap(causal, reverse):
    """Tap k meets what changes the sum before the SiLU when w[k] alone is 1."""
    layer, x = TokenConv1d(3, 4, causal=causal, bias=False, backend="reference"), torch.rand(2, 7, 3) + 0.5
    norms = norms_of(layer, (x, {"reverse": reverse}))
    for tap in range(4):
        with torch.no_grad():
            layer.weight.zero_()[:, :, tap] = 40.0  # SiLU of 20 and more is its input
            met = layer(x, reverse=reverse) / 40.0
        torch.testing.assert_close(norms[:, 0, tap], met.norm(dim=(0, 1)))


SEEN = (
    "vim_micro", "vim_micro+se", "vim_micro+mobilenet", "mambavision_micro", "mambavision_micro+attention_pool", "vmamba_micro", "vssd_micro_32",
    "vit_micro", "mambaout_micro",
)  # fmt: skip


@pytest.mark.parametrize("name", SEEN)
def test_every_layer_that_is_pruned_by_default_is_seen(name):
    base, *variant = name.split("+")
    model = create_model(base, 10, **dict.fromkeys(variant, True)).eval()
    names = prunable_names(model)
    with InputNorms(model, names) as inputs, torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
    weights = dict(model.named_parameters())
    for name, norm in inputs.norms(lambda tensor: tensor).items():
        assert norm.expand_as(weights[name]).isfinite().all() and norm.any(), name


def test_a_projection_of_directions_has_the_norms_of_the_sequence_that_each_direction_reads():
    """VMamba's: directions 2 and 3 read the sequences of 0 and 1."""
    mixer, x = nn.Module(), torch.randn(3, 2, 5, 7)
    mixer.x_proj, mixer.x_proj_weight = DirectionProjection(), nn.Parameter(torch.randn(4, 6, 5))
    with InputNorms(mixer, ["x_proj_weight"]) as inputs, torch.no_grad():
        y = mixer.x_proj(x, mixer.x_proj_weight)
    norms = inputs.norms(lambda tensor: tensor)["x_proj_weight"].expand_as(mixer.x_proj_weight)
    for direction in range(4):
        read = x[:, direction % 2]
        torch.testing.assert_close(y[:, direction], mixer.x_proj_weight[direction] @ read)
        torch.testing.assert_close(norms[direction], read.norm(dim=(0, 2)).expand(6, 5))


def test_a_parameter_without_inputs_is_refused_by_name():
    with pytest.raises(ValueError, match="'pos_embed' is not the weight of a linear layer or a convolution.*leave its group out"):
        InputNorms(create_model("vim_micro", 10), ["pos_embed"])


def test_a_layer_that_is_never_called_is_named():
    with InputNorms(nn.ModuleDict({"layer": nn.Linear(2, 2)}), ["layer.weight"]) as inputs:
        pass
    with pytest.raises(ValueError, match="'layer.weight' was not called"):
        inputs.norms(lambda tensor: tensor)


def test_hooks_are_gone_afterwards():
    layer = nn.Linear(2, 2)
    norms_of(layer, (torch.ones(1, 2), {}))
    assert not layer._forward_pre_hooks


def test_a_layer_that_a_network_reads_and_does_not_call_is_refused_before_the_launch():
    """BEiT computes its queries, keys and values with the weight alone. Without the check, every cell would end after its training."""
    with torch.device("meta"):
        model = create_model("timm/beit_base_patch16_224", 10, 32, depth=2, embed_dim=12, num_heads=2)
    reason = "reads 2 weights such as 'blocks.0.attn.qkv.weight' and does not call .* leave out the groups attention"
    for method in ("wanda", "sparsegpt"):
        with pytest.raises(ValueError, match=reason):
            create_method(method, sparsity=0.5).check(model)
        create_method(method, sparsity=0.5, groups=("mlp", "patch_embed")).check(model)
    create_method("magnitude", sparsity=0.5).check(model)


def test_a_network_that_does_not_run_without_memory_is_not_checked():
    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, images):
            return self.fc(images.mean((2, 3)) * float(images.sum()))

    check_inputs(Reading(), ["fc.weight"])
