"""Training with bf16 parameters: what stays in fp32 beside them, and the optimizer step at ZeRO stage 0.

Statistics of BatchNorm and sums of gradients are kept in fp32, because a sum in bf16 loses every summand below half a unit in its last master.
"""

from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from jobs.parallel.engine import Ranks


def keep_statistics_in_fp32(model: nn.Module) -> None:
    """Prepares a network for bf16 parameters: BatchNorms keep fp32 statistics; all other buffers of floating point become bf16.

    Raises ValueError for a class of BatchNorm with a forward pass of its own, whose statistics cannot be kept apart.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            if type(module).forward is not _BatchNorm.forward:
                kind = type(module).__name__
                raise ValueError(
                    f"{name}: {kind} has a forward pass of its own, so its statistics cannot stay fp32 in bf16: use nn.BatchNorm*, or fp32"
                )
            module.forward = MethodType(batch_norm, module)  # type: ignore[method-assign]
            continue
        for buffer in module.buffers(recurse=False):
            if buffer.is_floating_point():
                buffer.data = buffer.data.bfloat16()


def batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """The forward pass of torch's BatchNorm, with fp32 statistics and bf16 weights: x (B, C, ...) in any dtype, returned in it."""
    norm._check_input_dim(x)  # type: ignore[no-untyped-call]
    update = norm.momentum or 0.0
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        update = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else update
    kept = not norm.training or norm.track_running_stats
    mean, variance = (norm.running_mean, norm.running_var) if kept else (None, None)
    weight, bias = (None if parameter is None else parameter.float() for parameter in (norm.weight, norm.bias))
    return functional.batch_norm(x, mean, variance, weight, bias, norm.training or norm.running_mean is None, update, norm.eps)


@dataclass(frozen=True, kw_only=True)
class Master:
    """Where the fp32 master of a parameter is."""

    owner: Tensor  # the tensor that the torch optimizer updates; its gradient has the same layout
    offset: int  # of the first element within the flattened owner


class Masters:
    """An optimizer of fp32 masters of bf16 parameters, whole on every rank, which DeepSpeed calls in place of its own.

    DeepSpeed's own reads a scalar from the device for each parameter, and sums gradients in bf16. Here the masters of a group are one flat tensor,
    and so are their gradients; a step reads nothing. Only an optimizer that sees layers (`by_layer`) has a master for each parameter.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, clip_grad: float | None, by_layer: bool, ranks: "Ranks") -> None:
        """Takes `optimizer` over: its groups then hold the masters. Its parameters become bf16."""
        self.optimizer, self.clip_grad, self.ranks = optimizer, clip_grad, ranks
        self.parameters: list[nn.Parameter] = []
        self.weights: list[Tensor] = []  # of each parameter, a view of its master
        self.sums: list[Tensor] = []  # of each parameter, a view of its summed gradient
        self.flat_sums: list[Tensor] = []
        self.by_parameter: dict[nn.Parameter, Master] = {}
        self.summed = 0  # micro-batches
        self._global_grad_norm: Tensor | None = None  # as DeepSpeed names it
        for group in optimizer.param_groups:
            group["params"] = self._masters(group["params"], by_layer)

    @property
    def param_groups(self) -> list[dict[str, object]]:
        """Those of the torch optimizer."""
        groups: list[dict[str, object]] = self.optimizer.param_groups
        return groups

    def _masters(self, parameters: list[nn.Parameter], by_layer: bool) -> list[Tensor]:
        """The masters of a group of parameters, each with its gradient."""
        sizes = [parameter.numel() for parameter in parameters]
        flat = torch.cat([parameter.detach().float().reshape(-1) for parameter in parameters])
        flat_sum = torch.zeros_like(flat)
        weights, sums = (
            [part.view_as(parameter) for part, parameter in zip(torch.split(whole, sizes), parameters, strict=True)] for whole in (flat, flat_sum)
        )
        owners = weights if by_layer else [flat]
        for owner, gradient in zip(owners, sums if by_layer else [flat_sum], strict=True):
            owner.requires_grad_().grad = gradient
        offset = 0
        for index, parameter in enumerate(parameters):
            self.by_parameter[parameter] = Master(owner=owners[index] if by_layer else flat, offset=0 if by_layer else offset)
            offset += sizes[index]
            parameter.data = parameter.data.bfloat16()
        self.parameters += parameters
        self.weights += [weight.detach() for weight in weights]
        self.sums += sums
        self.flat_sums.append(flat_sum)
        return owners

    @torch.no_grad()
    def collect(self, *, last: bool) -> None:
        """Adds the parameters' gradients, those of one micro-batch, to the sums. After the `last` one of a step, averages the sums over ranks."""
        given = [(total, parameter.grad) for total, parameter in zip(self.sums, self.parameters, strict=True) if parameter.grad is not None]
        if self.summed == 0 and len(given) < len(self.sums):
            torch._foreach_zero_(self.flat_sums)
        totals, gradients = [total for total, _ in given], [gradient for _, gradient in given]
        if self.summed == 0:
            torch._foreach_copy_(totals, gradients)
        else:
            wide = [torch.empty_like(total) for total in totals]
            torch._foreach_copy_(wide, gradients)
            torch._foreach_add_(totals, wide)
        for parameter in self.parameters:
            parameter.grad = None
        self.summed = 0 if last else self.summed + 1
        if last and self.ranks.world > 1:
            for total in self.flat_sums:
                self.ranks.sum(total).div_(self.ranks.world)

    @torch.no_grad()
    def step(self) -> None:
        """Clips the norm of all gradients, updates the masters, and copies them to the parameters."""
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self.sums)))
        if self.clip_grad:
            torch._foreach_mul_(self.flat_sums, (self.clip_grad / (norm + 1e-6)).clamp(max=1.0))
        self._global_grad_norm = norm
        self.optimizer.step()
        torch._foreach_copy_([*self.parameters], self.weights)

    def gradient(self, parameter: nn.Parameter) -> Tensor:
        """The averaged gradient of a parameter, flattened: a view, from the last backward pass to the next."""
        master = self.by_parameter[parameter]
        assert master.owner.grad is not None
        return master.owner.grad.view(-1).narrow(0, master.offset, parameter.numel())
