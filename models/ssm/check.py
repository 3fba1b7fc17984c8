"""Whether the kernels of this machine compute what they should: `python -m models.ssm.check`.

Kernels are checked, not trusted: compilers have produced kernels that run and are wrong by half, silently. Scan and convolution, forward and
backward, are held against closed forms in fp64 at the lengths for which kernels have code of their own. A wrong kernel is refused by name
(`KernelFault`); backend `auto` passes it over.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.closed_pipe import ends_with_its_reader
from models.ssm.backends import PACKAGES, compiler_problem, is_installed, missing_kernels, scan_backend_used
from models.ssm.conv import conv_reference
from models.ssm.kernel import KernelMissing, load_kernel
from models.ssm.scan import Implementation

# mamba-ssm's kernel has code for up to 128, 256, 512, 1024 and 2048 positions, for whole tiles (vector loads) and others, and for several chunks.
LENGTHS = (5, 128, 197, 256, 300, 1000, 2048, 2100)
LIMITS = {torch.float32: 2e-3, torch.bfloat16: 4e-2}  # norm of the error / norm of the result
TAPS = 4
NAMES = {"cpu": "the C++ kernels", "cuda": "mamba-ssm's and causal-conv1d's kernels", "triton": "the Triton kernels"}

COMPILER_REMEDY = "load one in cluster.setup (module load gcc) or set CC in cluster.environment"

Convolution = Callable[[Tensor, Tensor, Tensor | None, int, bool], Tensor]


class KernelFault(RuntimeError):
    """Raised when the kernels that a run would use are wrong, or do not run."""


def check_kernels(model: torch.nn.Module, device_type: str) -> None:
    """Checks the kernels that a network will run on a GPU, before anything is trained with them. KernelFault; ImportError names what to install."""
    if device_type != "cuda":
        return
    backends = {str(vars(module)[name]) for module in model.modules() for name in {"backend", "scan_backend"} & vars(module).keys()}
    for backend in sorted(backends):
        used = scan_backend_used(device_type, backend)
        if missing := missing_kernels(device_type, used):
            raise ImportError(missing)
        if used in PACKAGES and (fault := fault_of(used, device_type)):
            raise KernelFault(f"{fault}. {remedy_of(used)}")


def remedy_of(backend: str) -> str:
    """What to do about kernels that are refused."""
    others = "set recipe.scan to " + " or ".join(repr(name) for name in (*PACKAGES, "reference") if name != backend)
    if backend != "triton":
        return f"Build the kernels again, or {others}"
    lacking = compiler_problem()
    return f"Triton needs a C compiler, and {lacking}: {COMPILER_REMEDY}, or {others}" if lacking else others.capitalize()


@cache
def fault_of(backend: str, device: str) -> str | None:
    """What is wrong with a backend's kernels on a device, or None. Runs once in a process; a tenth of a second, without compiling."""
    fault = first_fault(*implementations(backend), device, LENGTHS)
    return fault and f"{NAMES[backend]} are refused: {fault}"


def first_fault(scan: Implementation, convolution: Convolution, device: str, lengths: Sequence[int]) -> str | None:
    """The first result of a kernel that is not the reference's, in words, or None."""
    for dtype in LIMITS:
        for length in lengths:
            if fault := scan_fault(scan, device, length, dtype) or convolution_fault(convolution, device, length, dtype):
                return fault
    return None


def scan_fault(scan: Implementation, device: str, length: int, dtype: torch.dtype) -> str | None:
    """What is wrong with a scan of this length."""
    return _fault("scan", _with_options(scan, True, False), closed_form,
                  scan_inputs(length, dtype), device, dtype)  # fmt: skip


def convolution_fault(convolution: Convolution, device: str, length: int, dtype: torch.dtype) -> str | None:
    """What is wrong with a causal convolution of this length."""
    return _fault("convolution", _with_options(convolution, TAPS - 1, False), _with_options(conv_reference, TAPS - 1, False),
                  convolution_inputs(length, dtype), device, dtype)  # fmt: skip


def closed_form(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor) -> Tensor:
    """y of a scan with softplus and one group, without a loop: h[l] = P[l] sum over j <= l of drive[j] / P[j], with P the product of decays so far.

    1 / P grows with the sum of delta |A|, which fp64 holds up to 700; `scan_inputs` stays below it.
    """
    step = F.softplus(delta + delta_bias[:, None])
    log_decay = (step.unsqueeze(2) * A.unsqueeze(-1)).cumsum(-1)  # (B, D, N, L)
    states = torch.exp(log_decay) * ((step * u).unsqueeze(2) * B * torch.exp(-log_decay)).cumsum(-1)
    return ((states * C).sum(2) + D[:, None] * u) * F.silu(z)


def scan_inputs(length: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Inputs of a scan whose states reach over many positions: (1, 8, L), 2 states."""
    generator = torch.Generator().manual_seed(length)
    draw = partial(torch.randn, generator=generator)
    sequences = {name: draw(1, 8, length) for name in ("u", "delta")}
    shared = {name: draw(1, 1, 2, length).to(dtype) for name in ("B", "C")}
    rates = -torch.rand(8, 2, generator=generator)
    return {"u": sequences["u"].to(dtype), "delta": (sequences["delta"] / 2 - 2).to(dtype), "A": rates / 2, **shared, "D": draw(8),
            "z": draw(1, 8, length).to(dtype), "delta_bias": draw(8) / 2}  # fmt: skip


def convolution_inputs(length: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Inputs of a convolution: (1, 8, L), 4 taps."""
    generator = torch.Generator().manual_seed(length)
    draw = partial(torch.randn, generator=generator)
    return {"x": draw(1, 8, length).to(dtype), "weight": draw(8, 1, TAPS).to(dtype), "bias": draw(8).to(dtype)}


def _fault(kind: str, kernel: Callable[..., Tensor], reference: Callable[..., Tensor], inputs: dict[str, Tensor], device: str,
           dtype: torch.dtype) -> str | None:  # fmt: skip
    length, name = next(iter(inputs.values())).shape[-1], str(dtype).removeprefix("torch.")
    try:
        got = _with_gradients(kernel, {name: tensor.to(device) for name, tensor in inputs.items()})
    except torch.OutOfMemoryError:  # says nothing of the kernel
        raise
    except Exception as error:
        return f"{kind} of length {length} in {name}: {type(error).__name__}: {error}"
    for part, want in _with_gradients(reference, {name: tensor.double() for name, tensor in inputs.items()}).items():
        error_norm = float((got[part].cpu().double() - want).norm() / want.norm())
        if not error_norm < LIMITS[dtype]:  # NaN is a fault too
            return f"{kind} of length {length} in {name}: {part} is wrong by {error_norm:.1%} of its norm, and {LIMITS[dtype]:.1%} is allowed"
    return None


def _with_options(function: Callable[..., Any], *options: Any) -> Callable[..., Tensor]:
    """The first result of a function that takes options behind its tensors."""

    def call(*parts: Tensor) -> Tensor:
        result = function(*parts, *options)
        y: Tensor = result[0] if isinstance(result, tuple) else result
        return y

    return call


def _with_gradients(function: Callable[..., Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The result, and the gradients of all inputs under weights that differ from position to position."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    with torch.enable_grad():
        y = function(*leaves.values())
        weights = torch.linspace(-1, 1, y.numel(), device=y.device).reshape(y.shape)
        grads = torch.autograd.grad((y * weights.to(y.dtype)).sum(), list(leaves.values()))
    return {"y": y.detach()} | {f"the gradient of {name}": grad for name, grad in zip(leaves, grads, strict=True)}


def implementations(backend: str) -> tuple[Any, Any]:
    """The scan and the convolution of a backend."""
    if backend == "cuda":
        from models.ssm.cuda import causal_conv_cuda, scan_cuda

        return scan_cuda, lambda x, weight, bias, left, reverse: causal_conv_cuda(x, weight, bias, reverse)
    if backend == "triton":
        from models.ssm.triton_ops import conv_triton, scan_triton

        return scan_triton, conv_triton
    from models.ssm.conv import conv1d_silu
    from models.ssm.cpu import scan_cpu

    return scan_cpu, lambda x, weight, bias, left, reverse: conv1d_silu(x, weight, bias, left=left, reverse=reverse, backend="cpu")


def installed() -> list[tuple[str, str]]:
    """(backend, device) of the kernels that can run on this machine."""
    on_gpu = PACKAGES if torch.cuda.is_available() else ()
    return [("cpu", "cpu"), *((backend, "cuda") for backend in on_gpu if is_installed(backend))]


@ends_with_its_reader
def main() -> int:
    """Prints a line for each backend; returns 1 if kernels are wrong or the C++ library is not built."""
    try:
        load_kernel()
    except KernelMissing as missing:
        print(f"cpu: {missing}")
        return 1
    faults = {backend: first_fault(*implementations(backend), device, LENGTHS) for backend, device in installed()}
    for backend, fault in faults.items():
        print(f"{backend}: {NAMES[backend]} " + (f"are WRONG: {fault}" if fault else f"are right at lengths {', '.join(map(str, LENGTHS))}"))
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
