"""Inputs of a selective scan, its gradients, and an independent reference."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.ssm.scan import selective_scan


def scan_by_numbers(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """(y, last state) in fp64, one scalar equation at a time: the independent reference."""
    u_, delta_, A_, B_, C_ = (t.detach().double().numpy() for t in (u, delta, A, B, C))
    B_, C_ = (t if t.ndim == 4 else t[:, None] for t in (B_, C_))
    (batch, channels, length), states = u_.shape, A_.shape[1]
    y, last = np.zeros_like(u_), np.zeros((batch, channels, states))
    for b in range(batch):
        for d in range(channels):
            g, h = d // (channels // B_.shape[1]), np.zeros(states)
            for l in range(length)[:: -1 if reverse else 1]:  # noqa: E741
                step = delta_[b, d, l] + (0 if delta_bias is None else float(delta_bias[d]))
                step = np.log1p(np.exp(step)) if delta_softplus else step
                h = np.exp(step * A_[d]) * h + step * B_[b, g, :, l] * u_[b, d, l]
                y[b, d, l] = C_[b, g, :, l] @ h + (0 if D is None else float(D[d])) * u_[b, d, l]
                if z is not None:
                    gate = float(z[b, d, l])
                    y[b, d, l] *= gate / (1 + np.exp(-gate))
            last[b, d] = h
    return torch.from_numpy(y), torch.from_numpy(last)


def problem(
    batch: int,
    channels: int,
    length: int,
    states: int,
    groups: int = 0,
    dtype: torch.dtype = torch.float64,
    channels_last: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Inputs of a scan, all of them; groups 0: B and C without a group dimension."""
    torch.manual_seed(seed)
    wide = torch.promote_types(dtype, torch.float32)

    def sequence() -> Tensor:
        x = torch.randn(batch, channels, length, dtype=torch.float64).to(dtype)
        return x.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else x

    shared = (batch, groups, states, length) if groups else (batch, states, length)
    return {
        "u": sequence(), "delta": sequence(), "A": -torch.rand(channels, states, dtype=torch.float64).mul(3).exp().to(wide),
        "B": torch.randn(shared, dtype=torch.float64).to(dtype), "C": torch.randn(shared, dtype=torch.float64).to(dtype),
        "D": torch.randn(channels, dtype=wide), "z": sequence(), "delta_bias": torch.randn(channels, dtype=wide),
    }  # fmt: skip


def gradients(inputs: dict[str, Tensor], *, last: bool = True, **options: Any) -> dict[str, Tensor]:
    """Outputs and the gradients of all inputs under fixed random weights of the outputs, the last state only if `last`."""
    leaves = {name: tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for name, tensor in inputs.items()}
    y, state = selective_scan(**leaves, delta_softplus=True, return_last_state=True, **options)
    torch.manual_seed(7)
    outputs = {"y": y, "last": state} if last else {"y": y}
    weights = {name: torch.randn(output.shape, dtype=torch.float64).to(y.device) for name, output in outputs.items()}
    sum((output.double() * weights[name]).sum() for name, output in outputs.items()).backward()
    return {name: output.detach() for name, output in outputs.items()} | {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
