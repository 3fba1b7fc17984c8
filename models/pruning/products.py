"""Products of a layer's inputs, summed over samples and positions, and a forward pass that shows them layer by layer."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import TokenConv1d
from models.pruning.inputs import Layer, layer_of, with_padding
from models.vmamba import DirectionProjection

Visit = Callable[[str, Tensor], None]
PIECE = 1 << 24  # numbers of a piece of inputs, in fp64


@torch.no_grad()
def visit_layers(model: nn.Module, names: Iterable[str], images: Tensor, visit: Visit) -> None:
    """Calls `visit(name, products)` for every weight of `names` when a forward pass of `images` reaches its layer, before the layer computes.

    products: as `input_products`. A layer reads what `visit` left of it and of the layers before it. A layer that is called several times is visited
    at its first call. ValueError: a name that is not the weight of a linear layer or a convolution, or a layer that is not called.
    """
    layers = {name: layer_of(model, name) for name in names}
    unseen = set(layers)

    def look(name: str, layer: Layer, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        if name in unseen:
            unseen.remove(name)
            visit(name, input_products(layer, *inputs, **options))

    hooks = [layer.register_forward_pre_hook(partial(_called, partial(look, name)), with_kwargs=True) for name, layer in layers.items()]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    for name in layers:
        if name in unseen:
            raise ValueError(f"the layer of '{name}' was not called as a module while inputs were recorded, so its inputs are unknown")


def _called(look: Callable[[Layer, tuple[Any, ...], dict[str, Any]], None], layer: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
    """A hook, to which torch gives the layer first. It changes no input."""
    look(layer, inputs, options)


@torch.no_grad()
def input_products(layer: Layer, x: Tensor, weight: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """sum of i i^T, (groups, inputs, inputs) fp64, over samples and positions: i are the inputs that a row of the weight multiplies.

    With it, the squared change of a layer's outputs by a change d of a row is d^T (sum of i i^T) d. The rows of a group share their inputs:
    `weight.reshape(groups, -1, inputs)` has them. A linear layer is one group; a convolution has those that it was made with, and its inputs are
    channels times kernel positions, zero padding included; VMamba's projections have one for each direction.
    """
    if isinstance(layer, nn.Linear):
        return _summed(lambda part: part.reshape(1, -1, layer.in_features).mT, x.reshape(-1, layer.in_features))
    if isinstance(layer, DirectionProjection):
        assert weight is not None  # it is given in the call
        directions, sequences = len(weight), x.shape[1]
        return _summed(lambda part: part.permute(1, 2, 0, 3).flatten(2), x).repeat(directions // sequences, 1, 1)
    if isinstance(layer, TokenConv1d):
        return _summed(partial(_taps, layer, reverse), x)
    return _summed(partial(_patches, layer), x)


def _summed(inputs: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The products of `inputs(x)`, (groups, inputs, samples * positions), for a few samples at a time."""
    first = inputs(x[:1])
    total = torch.zeros(first.shape[0], first.shape[1], first.shape[1], dtype=torch.float64, device=x.device)
    for part in torch.split(x, max(1, PIECE // max(1, first.numel()))):
        met = inputs(part).double()
        total.baddbmm_(met, met.mT)
    return total


def _taps(layer: TokenConv1d, reverse: bool, x: Tensor) -> Tensor:
    """(D, taps, B * L) of (B, L, D); models.ssm.conv says how the taps are placed."""
    taps = layer.weight.shape[-1]
    around = (taps - 1 - layer.left, layer.left) if reverse else (layer.left, taps - 1 - layer.left)
    met = F.pad(x.transpose(1, 2), around).unfold(-1, taps, 1)
    return (met.flip(-1) if reverse else met).permute(1, 3, 0, 2).flatten(2)


def _patches(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """(groups, channels * kernel positions, B * places) of (B, channels, ...)."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(with_padding(layer, x), layer._reversed_padding_repeated_twice, mode=mode)
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    if isinstance(layer, nn.Conv1d):
        padded, kernel, stride, dilation = padded.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
    patches = F.unfold(padded, kernel, dilation=dilation, stride=stride)
    grouped = patches.reshape(len(patches), layer.groups, -1, patches.shape[-1])
    return grouped.permute(1, 2, 0, 3).flatten(2)
