"""Shared parts, and which parameters take weight decay."""

import torch
import torch.nn.functional as F

from models.layers import DropPath, RMSNorm, TokenConv1d, TokenLinear, weight_decay_groups
from models.registry import create_model


def test_rms_norm_is_computed_in_fp32_and_given_in_the_dtype_asked_for() -> None:
    norm, x = RMSNorm(8, eps=1e-5).bfloat16(), torch.randn(3, 8)
    want = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x, torch.float32), want)
    assert norm(x, torch.bfloat16).dtype == torch.bfloat16


def test_dropped_samples_are_zero_and_the_others_keep_the_mean() -> None:
    torch.manual_seed(0)
    y = DropPath(0.25)(torch.ones(4000, 2, 3))
    per_sample = y.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1))
    assert set(per_sample[:, 0].unique().tolist()) == {0.0, float(torch.tensor(4 / 3))}
    assert abs(y.mean() - 1) < 0.05


def test_a_causal_convolution_sees_the_past_alone() -> None:
    torch.manual_seed(0)
    conv, x = TokenConv1d(6, 4, causal=True, bias=True, backend="auto"), torch.randn(2, 9, 6)
    want = F.silu(F.conv1d(F.pad(x.transpose(1, 2), (3, 0)), conv.weight, conv.bias, groups=6)).transpose(1, 2)
    torch.testing.assert_close(conv(x), want)
    changed = x.clone()
    changed[:, 5] += 1
    assert torch.equal(conv(changed)[:, :5], conv(x)[:, :5]) and not torch.equal(conv(changed)[:, 5:], conv(x)[:, 5:])


def test_a_reversed_convolution_is_that_of_the_flipped_sequence() -> None:
    torch.manual_seed(0)
    conv, x = TokenConv1d(6, 4, causal=True, bias=True, backend="auto"), torch.randn(2, 9, 6)
    torch.testing.assert_close(conv(x, reverse=True), conv(x.flip(1)).flip(1))


def test_rates_biases_norms_and_positions_take_no_weight_decay() -> None:
    model = create_model("vim_micro", se={})
    decay, rest = weight_decay_groups(model, decay_ssm=False)
    assert sorted(decay + rest) == sorted(name for name, _ in model.named_parameters())
    last = {name.rpartition(".")[2] for name in rest}
    assert last == {"A_log", "A_b_log", "D", "D_b", "bias", "weight", "pos_embed", "cls_token"}
    assert all("norm" in name for name in rest if name.endswith(".weight"))
    assert {"layers.0.mixer.conv1d.weight", "layers.0.se.reduce.weight", "head.weight"} <= set(decay)


def test_the_official_runs_decayed_the_rates() -> None:
    decay, rest = weight_decay_groups(create_model("vim_micro"), decay_ssm=True)
    assert "layers.0.mixer.A_log" in decay and "layers.0.mixer.A_b_log" in decay
    assert "layers.0.mixer.D" in rest  # a vector: timm never decays those


def test_a_linear_layer_may_lay_positions_beside_each_other_in_memory() -> None:
    torch.manual_seed(0)
    layer, x = TokenLinear(6, 4, bias=False), torch.randn(2, 5, 6)
    y = layer(x, True)
    torch.testing.assert_close(y, layer(x))
    assert y.stride() == (5, 1, 10) and layer(x).is_contiguous()
