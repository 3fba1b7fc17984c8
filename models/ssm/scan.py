"""The selective scan of Mamba, one function over four backends.

| paper (arXiv 2312.00752, eq. 1-4 and algorithm 2) | here |
|---|---|
| batch, inner channels, length, state size | B, D, L, N |
| x, Delta | u, delta: (B, D, L) |
| A (diagonal, one row per channel) | A: (D, N) |
| B, C (from the input) | B, C: (B, N, L), or (B, G, N, L): G groups of D / G channels share them |
| exp(Delta A), Delta B (zero-order hold on A, Euler on B) | decay, drive |
"""

from collections.abc import Callable
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ssm.backends import resolve_backend

MAX_STATE = 256  # of the kernels
Optional = Tensor | None
# u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse -> (y, last state); B, C: (B, G, N, L)
Implementation = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Optional, Optional, Optional, bool, bool], tuple[Tensor, Tensor]]


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: Literal[False] = False,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor: ...
@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    return_last_state: Literal[True],
    reverse: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """y, (B, D, L) in u's dtype, or (y, last state) with the last state (B, D, N) in fp32 (fp64 for fp64 inputs).

    h[l] = exp(delta[l] A) h[l-1] + delta[l] B[l] u[l];  y[l] = (C[l] h[l] + D u[l]) * silu(z[l])
    u, delta, z: (B, D, L) of one dtype, fp32, bf16 or fp64, any strides; A: (D, N), real; B, C: (B, N, L) or (B, G, N, L); D, delta_bias: (D,).
    `delta_bias` is added to delta, then `delta_softplus` applied. `reverse`: from the last position to the first, as on flipped inputs with y
    flipped back. Backends: `cpu` (C++), `cuda` (mamba-ssm's kernel), `triton`, `reference` (torch, any device); `auto`: by u's device.
    ValueError: shapes that do not fit, or an unknown backend. The signature and shapes are those of mamba_ssm's selective_scan_fn.
    """
    if not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]  # a trace would note each comparison of sizes as operations
        _check_shapes(u, delta, A, B, C, D, z, delta_bias)
    B, C = (part.unsqueeze(1) if part.ndim == 3 else part for part in (B, C))
    y, last = _implementation(resolve_backend(u, backend))(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    return (y, last) if return_last_state else y


def scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """(y, last state), by a loop over positions that holds one (B, G, D/G, N) state at a time. B, C: (B, G, N, L)."""
    wide = torch.promote_types(u.dtype, torch.float32)
    batch, channels, length = u.shape
    groups, states = B.shape[1:3]
    x, step = u.to(wide), step_sizes(delta.to(wide), delta_bias, delta_softplus)
    grouped = (batch, groups, channels // groups, length)
    steps, drives = step.reshape(grouped).unbind(-1), (step * x).reshape(grouped).unbind(-1)
    inputs, readouts = B.to(wide).unsqueeze(2).unbind(-1), C.to(wide).unsqueeze(2).unbind(-1)
    rates = A.to(wide).reshape(groups, channels // groups, states)
    state = u.new_zeros((*grouped[:3], states), dtype=wide)
    outputs: list[Tensor] = [state] * length
    for at in reversed(range(length)) if reverse else range(length):
        state = torch.exp(steps[at].unsqueeze(-1) * rates) * state + drives[at].unsqueeze(-1) * inputs[at]
        outputs[at] = (state * readouts[at]).sum(-1)
    y = torch.stack(outputs, dim=-1).reshape(u.shape)
    return gated(y, x, D, z).to(u.dtype), state.reshape(batch, channels, states)


def step_sizes(delta: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    """delta with its bias and softplus, (B, D, L), in delta's dtype."""
    if bias is not None:
        delta = delta + bias.to(delta).unsqueeze(-1)
    return F.softplus(delta) if softplus else delta


def gated(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """The outputs of the states, (B, D, L), with the skip and the gate, in y's dtype."""
    if D is not None:
        y = y + D.to(y).unsqueeze(-1) * x
    return y if z is None else y * F.silu(z.to(y))


def _implementation(backend: str) -> Implementation:
    """The scan of a backend. Kernels are imported when they are first used."""
    if backend == "cpu":
        from models.ssm.cpu import scan_cpu

        return scan_cpu
    if backend == "cuda":
        from models.ssm.cuda import scan_cuda

        return scan_cuda
    if backend == "triton":
        from models.ssm.triton_ops import scan_triton

        return scan_triton
    if torch.compiler.is_exporting():
        from models.ssm.doubling import scan_by_doubling

        return scan_by_doubling
    return scan_reference


def _check_shapes(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None) -> None:
    if u.ndim != 3:
        raise ValueError(f"u must be (B, D, L), not {tuple(u.shape)}")
    if A.ndim != 2 or A.is_complex():
        raise ValueError(f"A must be real and (D, N), not {A.dtype} {tuple(A.shape)}")
    batch, channels, length = u.shape
    states, groups = A.shape[1], B.shape[1] if B.ndim == 4 else 1
    if not 1 <= states <= MAX_STATE:
        raise ValueError(f"the state size must be 1 to {MAX_STATE}, not {states}")
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be split into {groups} groups of B and C")
    shared = (batch, groups, states, length) if B.ndim == 4 else (batch, states, length)
    wanted = {
        "delta": (delta, u.shape),
        "A": (A, (channels, states)),
        "B": (B, shared),
        "C": (C, shared),
        "D": (D, (channels,)),
        "z": (z, u.shape),
        "delta_bias": (delta_bias, (channels,)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"{name} must be {tuple(shape)} for u {tuple(u.shape)}, not {tuple(tensor.shape)}")
