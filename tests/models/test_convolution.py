"""The parts of the convolutional levels, each against its formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.convolution import AttentionDownsample, ConvBlock, Downsample, InvertedBlock, LayerNorm2d, MapExcite, Stem


def test_layer_norm_normalises_the_channels_of_each_position() -> None:
    torch.manual_seed(0)
    norm, x = LayerNorm2d(6), torch.randn(2, 6, 3, 4)
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    torch.testing.assert_close(norm(x), (x - mean) / (variance + 1e-5).sqrt())


def test_removed_channels_count_as_zeros_in_mean_and_variance() -> None:
    torch.manual_seed(0)
    whole, smaller, x = LayerNorm2d(6), LayerNorm2d(4), torch.randn(2, 6, 3, 4)
    x[:, 4:] = 0.0
    smaller.removed = 2
    torch.testing.assert_close(smaller(x[:, :4]), whole(x)[:, :4])


def test_the_stem_has_two_strided_convolutions() -> None:
    stem = Stem(4, 8, (1, 2), nn.BatchNorm2d, gelu=False)
    assert stem(torch.randn(2, 3, 9, 12)).shape == (2, 8, 5, 6)
    assert [type(layer).__name__ for layer in stem.conv_down] == ["Conv2d", "BatchNorm2d", "ReLU"] * 2
    assert not any(isinstance(layer, nn.ReLU) for layer in Stem(4, 8, (2, 2), nn.BatchNorm2d, gelu=True).conv_down)


@pytest.mark.parametrize("separable", [False, True])
def test_a_block_adds_its_branch_to_its_input(separable: bool) -> None:
    torch.manual_seed(0)
    block, x = ConvBlock(4, 0.0, nn.BatchNorm2d, kernel=3, separable=separable, tanh=True, se_ratio=None).eval(), torch.randn(2, 4, 5, 6)
    branch = F.gelu(block.norm1(block.conv1(x)), approximate="tanh")
    torch.testing.assert_close(block(x), x + block.norm2(block.conv2(branch)))


def test_an_inverted_block_is_linear_at_its_end() -> None:
    torch.manual_seed(0)
    block, x = InvertedBlock(4, 2, 3, 0.0, nn.BatchNorm2d, None).eval(), torch.randn(2, 4, 5, 6)
    assert [layer.out_channels for layer in block.branch if isinstance(layer, nn.Conv2d)] == [8, 8, 4]
    assert block.branch[3].groups == 8 and isinstance(block.branch[-1], nn.BatchNorm2d)
    nn.init.zeros_(block.branch[6].weight)
    assert torch.equal(block(x), x)


def test_excitation_gates_each_channel_by_its_mean() -> None:
    torch.manual_seed(0)
    gate, x = MapExcite(8, 4), torch.randn(2, 8, 3, 5)
    hidden = F.relu(F.linear(x.mean((2, 3)), gate.reduce.weight.flatten(1), gate.reduce.bias))
    factors = F.linear(hidden, gate.excite.weight.flatten(1), gate.excite.bias).sigmoid()
    torch.testing.assert_close(gate(x), x * factors[:, :, None, None])


@pytest.mark.parametrize("norm", [None, LayerNorm2d])
def test_down_sampling_halves_the_map_and_rounds_up(norm: type[nn.Module] | None) -> None:
    down = Downsample(4, norm)
    assert down(torch.randn(2, 4, 8, 6)).shape == (2, 8, 4, 3)
    assert down(torch.randn(2, 4, 7, 5)).shape == (2, 8, 4, 3)


def test_attention_pools_each_square_of_four_tokens_and_repeats_the_last_row_and_column() -> None:
    torch.manual_seed(0)
    down, x = AttentionDownsample(4, heads=2), torch.randn(2, 4, 3, 5)
    y = down(x)
    assert y.shape == (2, 8, 2, 3)
    torch.testing.assert_close(y[:, :, 0, 1], down.pool(x[:, :, 0:2, 2:4].flatten(2).transpose(1, 2)))
    corner = x[:, :, 2:, 4:].expand(2, 4, 2, 2)
    torch.testing.assert_close(y[:, :, 1, 2], down.pool(corner.flatten(2).transpose(1, 2)))
