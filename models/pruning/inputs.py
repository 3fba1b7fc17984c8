"""What the weights of a layer multiply: norms of its inputs, one for every weight of an output row."""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import TokenConv1d


class InputNorms:
    """Adds up, while it is open, the squares of the inputs that some layers of a model are called with.

    A linear layer has one norm for each input feature, a convolution one for each input channel and place of its kernel (the inputs that this place
    of the kernel meets, zero padding included; per group where there are groups). A layer that is called several times adds up all its calls.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        """`names`: weights of the model. ValueError: a parameter that is not the weight of a linear layer or a convolution, and so has no inputs."""
        self.layers = {name: layer_of(model, name) for name in names}
        self.squares: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        self.hooks = [layer.register_forward_pre_hook(self.adder(name), with_kwargs=True) for name, layer in self.layers.items()]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self.hooks:
            hook.remove()

    def adder(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        """The hook of one layer."""

        def add(layer: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
            found = squares(layer, inputs[0], **options)
            self.squares[name] = self.squares[name] + found if name in self.squares else found

        return add

    def norms(self, total: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """fp32 tensors that broadcast to the weights' shapes. `total` sums over ranks. ValueError: a layer that was never called."""
        for name in self.layers:
            if name not in self.squares:
                raise ValueError(f"the layer of '{name}' was not called as a module while inputs were recorded, so its inputs are not known")
        return {name: total(self.squares[name]).sqrt().float() for name in self.layers}


def layer_of(model: nn.Module, name: str) -> nn.Module:
    """The linear layer or convolution whose weight has this name; ValueError where it is something else."""
    owner, _, last = name.rpartition(".")
    layer = model.get_submodule(owner)
    if last != "weight" or not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
        why = "it has no inputs whose norms could be taken; leave its group out"
        raise ValueError(f"'{name}' is not the weight of a linear layer or a convolution: {why}")
    return layer


@torch.no_grad()
def squares(layer: nn.Module, x: Tensor, *, reverse: bool = False) -> Tensor:
    """Sums in fp64, over samples and places, of the squares that each weight of `layer` meets; broadcasts to the weight's shape."""
    energy = x.double().square()
    if isinstance(layer, nn.Linear):
        return energy.reshape(-1, layer.in_features).sum(0)
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if isinstance(layer, TokenConv1d):  # tokens before channels; see models.ssm.conv for where the taps lie
        around = (weight.shape[-1] - 1 - layer.left, layer.left) if reverse else (layer.left, weight.shape[-1] - 1 - layer.left)
        met = F.pad(energy.transpose(1, 2), around).unfold(-1, weight.shape[-1], 1).sum((0, 2))
        return (met.flip(-1) if reverse else met).unsqueeze(1)
    # The slope of the sum of all outputs for the squared input: exactly what each weight is multiplied by, at every place together.
    with torch.enable_grad():
        ones = torch.ones_like(weight, dtype=torch.float64, requires_grad=True)
        output = layer._conv_forward(energy, ones, None)  # type: ignore[operator]
        return torch.autograd.grad(output.sum(), ones)[0]
