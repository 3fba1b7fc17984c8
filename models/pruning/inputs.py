"""Norms of the inputs of layers: one norm for every weight of an output row."""

import math
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import image_size
from models.layers import TokenConv1d
from models.meta_twin import meta_twin
from models.pruning.scope import parameter_groups
from models.vmamba import DirectionProjection

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | DirectionProjection


class InputNorms:
    """Sums the squares of the inputs of some layers of a model while it is open.

    A linear layer has one norm for each input feature. A convolution has one for each input channel and kernel position, over the inputs that this
    kernel position multiplies, zero padding included; with groups, for each group. All calls of a layer are summed.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        """`names`: weights of the model. ValueError: a parameter that is not the weight of a linear layer or a convolution."""
        self.layers = {name: layer_of(model, name) for name in names}
        self.squares: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        self.hooks = [layer.register_forward_pre_hook(self.adder(name), with_kwargs=True) for name, layer in self.layers.items()]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self.hooks:
            hook.remove()

    def adder(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        """The hook of a layer."""
        layer = self.layers[name]

        def add(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
            new = squares(layer, *inputs, **options)
            self.squares[name] = self.squares[name] + new if name in self.squares else new

        return add

    def norms(self, total: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """fp32 tensors that broadcast to the weights' shapes. `total` sums over ranks. ValueError if a layer was never called."""
        for name in self.layers:
            if name not in self.squares:
                raise ValueError(f"the layer of '{name}' was not called as a module while inputs were recorded, so its inputs are unknown")
        return {name: total(self.squares[name]).sqrt().float() for name in self.layers}


def layer_of(model: nn.Module, name: str) -> Layer:
    """The linear layer or convolution whose weight has this name. ValueError if the name is that of another parameter."""
    owner, _, last = name.rpartition(".")
    layer = model.get_submodule(owner)
    if last.endswith("_weight") and isinstance(projection := getattr(layer, last.removesuffix("_weight"), None), DirectionProjection):
        return projection
    if last != "weight" or not isinstance(layer, Layer):
        why = "its inputs have no norms; leave its group out"
        raise ValueError(f"'{name}' is not the weight of a linear layer or a convolution: {why}")
    return layer


def check_inputs(model: nn.Module, names: Sequence[str]) -> None:
    """Raises ValueError, with names, if a weight's inputs cannot be seen: it is of another kind of layer, or of a layer that is never called.

    Some networks read a layer's weight and do not call the layer. The network runs on the meta device; one that cannot run there is not checked. Ours
    call all their layers.
    """
    if type(model).__module__.startswith("models."):
        return
    twin, size = meta_twin(model), image_size(model)
    uncalled = {layer_of(twin, name): name for name in names}
    for layer in tuple(uncalled):
        layer.register_forward_pre_hook(lambda called, _: _forget(uncalled, called))
    try:
        with torch.no_grad():
            twin(torch.empty(1, 3, size, size, device="meta"))
    except Exception:  # of any kind: the network may be a user's
        return
    if uncalled:
        first, groups = next(iter(uncalled.values())), parameter_groups(model)
        leave = ", ".join(dict.fromkeys(groups[name] for name in uncalled.values()))
        why = f"the network reads {len(uncalled)} weights such as '{first}' and does not call their layers, so that their inputs are unknown"
        raise ValueError(f"{why}; leave out the groups {leave}")


def _forget(layers: dict[Layer, str], layer: Any) -> None:
    layers.pop(layer, None)


def with_padding(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """The input of a convolution, (B, channels, ...), as it is convolved: timm's Conv2dSame adds zeros to it, which its `padding` does not say."""
    if type(layer).__name__ != "Conv2dSame":
        return x
    around: list[int] = []  # from the last dimension to the first
    for size, kernel, stride, dilation in zip(x.shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True):
        more = max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        around = [more // 2, more - more // 2, *around]
    return F.pad(x, around)


@torch.no_grad()
def squares(layer: Layer, x: Tensor, weight: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """Sums in fp64, over samples and positions, of the squared inputs that each weight of `layer` multiplies; broadcasts to the weight's shape."""
    energy = x.double().square()
    if isinstance(layer, nn.Linear):
        return energy.reshape(-1, layer.in_features).sum(0)
    if isinstance(layer, DirectionProjection):
        assert weight is not None  # it is given in the call
        return energy.sum((0, 3)).repeat(len(weight) // x.shape[1], 1).unsqueeze(1)
    weight = layer.weight
    if isinstance(layer, TokenConv1d):  # (B, L, D); models.ssm.conv says how the taps are placed
        around = (weight.shape[-1] - 1 - layer.left, layer.left) if reverse else (layer.left, weight.shape[-1] - 1 - layer.left)
        met = F.pad(energy.transpose(1, 2), around).unfold(-1, weight.shape[-1], 1).sum((0, 2))
        return (met.flip(-1) if reverse else met).unsqueeze(1)
    energy = with_padding(layer, energy)
    # The derivative of the sum of all outputs, for the squared input: the sum over all positions of what each weight is multiplied by.
    with torch.enable_grad():
        ones = torch.ones_like(weight, dtype=torch.float64, requires_grad=True)
        output = layer._conv_forward(energy, ones, None)
        return torch.autograd.grad(output.sum(), ones)[0]
