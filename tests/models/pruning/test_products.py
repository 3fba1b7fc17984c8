"""Products of inputs against autograd and against `InputNorms`; the pass that shows layers one by one against a network that is cut by hand."""

import pytest
import torch
from torch import nn

from models.layers import DeltaProjection, TokenConv1d
from models.pruning import products
from models.pruning.inputs import InputNorms
from models.pruning.products import input_products, visit_layers
from models.pruning.scope import prunable_names
from models.registry import create_model
from models.torchvision_shim import load_timm
from models.vmamba import DirectionProjection

load_timm()
from timm.layers import Conv2dSame  # noqa: E402  # timm cannot be imported before

LAYERS = {
    "linear": (nn.Linear(6, 4), (3, 5, 6)),
    "delta": (DeltaProjection(6, 4), (3, 5, 6)),
    "conv": (nn.Conv2d(4, 6, 3, 2, 1), (3, 4, 7, 5)),
    "conv of groups": (nn.Conv2d(4, 6, (2, 3), padding=(0, 1), groups=2), (3, 4, 7, 5)),
    "depthwise": (nn.Conv2d(4, 4, 3, padding="same", groups=4), (3, 4, 7, 5)),
    "dilated": (nn.Conv2d(2, 3, 3, dilation=2), (3, 2, 7, 6)),
    "reflected": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (3, 2, 7, 6)),
    "conv1d": (nn.Conv1d(4, 6, 3, 2, 1, groups=2), (3, 4, 9)),
    "timm's same": (Conv2dSame(4, 6, 5, 2), (3, 4, 7, 4)),
}


@pytest.mark.parametrize("piece", [1, 1 << 24], ids=["sample by sample", "at once"])
@pytest.mark.parametrize("case", LAYERS)
def test_they_give_the_squared_change_of_the_outputs_by_any_change_of_the_weight(case, piece, monkeypatch):
    """In fp64, by the layer itself: |layer(w + d) - layer(w)|^2 = sum over rows of d^T H d."""
    monkeypatch.setattr(products, "PIECE", piece)
    layer, shape = LAYERS[case]
    layer = layer.double()
    if layer.bias is not None:
        layer.bias.data.zero_()
    x, change = torch.randn(shape, dtype=torch.float64), torch.randn_like(layer.weight)
    H = input_products(layer, x)
    rows = change.reshape(len(H), -1, H.shape[-1])
    layer.weight.data.copy_(change)
    torch.testing.assert_close((rows @ H * rows).sum(), layer(x).square().sum())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_taps_of_a_convolution_over_tokens_meet_what_they_multiply(causal, reverse):
    """SiLU of 20 and more is its input: with a large bias, the layer is linear."""
    layer, x = TokenConv1d(3, 4, causal=causal, bias=True, backend="reference").double(), torch.randn(2, 7, 3, dtype=torch.float64)
    H, change = input_products(layer, x, reverse=reverse), torch.randn(3, 1, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(change)
        layer.bias.fill_(1000.0)
        difference = layer(x, reverse=reverse) - 1000.0
    torch.testing.assert_close((change @ H * change).sum(), difference.square().sum())


def test_directions_have_the_products_of_the_sequences_that_they_read():
    layer, x, weight = DirectionProjection(), torch.randn(3, 2, 5, 7, dtype=torch.float64), torch.randn(4, 6, 5, dtype=torch.float64)
    H = input_products(layer, x, weight)
    for direction, y in enumerate(layer(x, weight).unbind(1)):
        torch.testing.assert_close((weight[direction] @ H[direction] * weight[direction]).sum(), y.square().sum())


SEEN = ("vim_micro", "vim_micro+mobilenet", "mambavision_micro+attention_pool", "vmamba_micro", "vssd_micro_32", "vit_micro", "mambaout_micro")


@pytest.mark.parametrize("name", SEEN)
def test_every_layer_of_every_family_is_visited_once_and_squares_are_those_of_the_norms(name):
    base, *variant = name.split("+")
    model, images = create_model(base, 10, **dict.fromkeys(variant, True)).eval(), torch.randn(2, 3, 32, 32)
    names, seen = prunable_names(model), {}
    with InputNorms(model, names) as inputs, torch.no_grad():
        model(images)
    visit_layers(model, names, images, lambda name, H: seen.update({name: H.diagonal(dim1=-2, dim2=-1)}))
    assert seen.keys() == set(names)
    for name, norm in inputs.norms(lambda tensor: tensor).items():
        weight = model.get_parameter(name)
        each = seen[name].unsqueeze(1).expand(-1, len(weight.reshape(len(seen[name]), -1, seen[name].shape[-1])[0]), -1).reshape(weight.shape)
        torch.testing.assert_close(each.sqrt().float(), norm.expand_as(weight), msg=name)


class Chain(nn.Module):
    """Two layers, the first called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.idle = (nn.Linear(3, 3, bias=False) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3) from (B, 3)."""
        return self.second(self.first(self.first(x)))


def test_a_layer_computes_with_what_the_visit_left_and_later_layers_read_it():
    net, x, order = Chain().double(), torch.randn(5, 3, dtype=torch.float64), []
    first = net.first.weight.detach().clone()

    def double(name: str, H: torch.Tensor) -> None:
        order.append((name, H))
        net.get_parameter(name).mul_(2.0)

    visit_layers(net, ("second.weight", "first.weight"), x, double)
    assert [name for name, _ in order] == ["first.weight", "second.weight"]
    hidden = x @ (2 * first).T @ (2 * first).T
    torch.testing.assert_close(order[0][1][0], x.T @ x)
    torch.testing.assert_close(order[1][1][0], hidden.T @ hidden)
    assert not net.first._forward_pre_hooks and not net.second._forward_pre_hooks


def test_a_layer_that_is_not_called_is_named_and_hooks_go_after_a_failure():
    net = Chain()
    with pytest.raises(ValueError, match="'idle.weight' was not called"):
        visit_layers(net, ("idle.weight",), torch.ones(1, 3), lambda name, H: None)
    with pytest.raises(ZeroDivisionError):
        visit_layers(net, ("first.weight",), torch.ones(1, 3), lambda name, H: 1 / 0)
    assert not net.first._forward_pre_hooks
