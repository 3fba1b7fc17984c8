"""2:4 sparsity on a GPU: the weights in torch's semi-structured form, and how much faster a network runs with them.

The pattern is that of `models.pruning.semi_structured`. Kernels: cuSPARSELt or CUTLASS, as torch chooses; Mishra et al., arXiv 2104.08378, section 3.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from jobs.measure.speed import race, speedup
from models.pruning.semi_structured import BLOCK, KEPT, takes_pattern

CAPABILITY = (8, 0)  # of the GPU: Ampere brought the instructions
DTYPE = torch.bfloat16  # of both contestants


def patterned(masks: Mapping[str, Tensor]) -> list[str]:
    """Names of the matrices of which a mask keeps two of every four neighbours; a mask that is sparser by chance was not made for these kernels."""
    fits = {name: mask for name, mask in masks.items() if takes_pattern(mask.shape)}
    return [name for name, mask in fits.items() if bool((mask.reshape(-1, BLOCK).sum(1) == KEPT).all())]


def semi_structured_speedup(
    model: nn.Module, masks: Mapping[str, Tensor], *, img_size: int, batch_size: int, seconds: float = 1.0
) -> tuple[float | None, str]:
    """Time of a batch with dense weights over that with 2:4 kernels, both in bf16, and what was measured; None, and why nothing was.

    `model`: fp32, its masked weights zero, on the device that is asked about; it is left alone. `seconds`: for both contestants, warm-up apart.
    """
    device = next(model.parameters()).device
    names = patterned(masks)
    if not names:
        return None, "2:4: no mask has the pattern"
    if device.type != "cuda":
        return None, f"2:4: no 2:4 kernels on {device.type.upper()}; the pattern is in the weights, and a GPU runs it faster"
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        return None, f"2:4: {torch.cuda.get_device_name(device)} has no 2:4 kernels, which need compute capability {CAPABILITY[0]}.{CAPABILITY[1]}"
    dense = copy.deepcopy(model).eval().to(DTYPE)
    sparse, turned, refused = sparsified(dense, names, torch.sparse.to_sparse_semi_structured)
    if not turned:
        return None, f"2:4: torch's kernels take none of {len(names)} matrices: {refused}"
    images = torch.randn(batch_size, 3, img_size, img_size, device=device, dtype=DTYPE)
    with torch.inference_mode():
        try:
            sparse(images)
        except (RuntimeError, NotImplementedError) as error:  # what a driver or a build of torch lacks is known by trying alone
            return None, f"2:4: torch's kernels failed: {error}"
        times = race({"sparse": lambda: sparse(images), "dense": lambda: dense(images)}, device, seconds, alone=False)
    ratio = speedup(times["sparse"], times["dense"], same_kernels=False)
    return ratio, f"2:4: {len(turned)} of {len(names)} matrices by torch's semi-structured kernels, {DTYPE}, batch {batch_size}, beside dense kernels"


def sparsified(model: nn.Module, names: Sequence[str], turn: Callable[[Tensor], Tensor]) -> tuple[nn.Module, list[str], str]:
    """A copy of the model with the named weights of its linear layers turned into their 2:4 form; which they were; why the last other was not."""
    found, turned, refused = copy.deepcopy(model), [], "none is the weight of a linear layer"
    for name in names:
        layer = found.get_submodule(name.rpartition(".")[0])
        if not isinstance(layer, nn.Linear):
            continue
        try:
            layer.weight = nn.Parameter(turn(layer.weight.detach().contiguous()), requires_grad=False)
            turned.append(name)
        except RuntimeError as error:  # torch says which shapes its kernels take
            refused = str(error)
    return found, turned, refused
