"""2:4 sparsity on a GPU: weights in torch's semi-structured form, and the speed-up of a network with them.

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
    """Names of the matrices whose mask keeps exactly two of every four neighbours. A mask that is sparser was not made for these kernels."""
    candidates = {name: mask for name, mask in masks.items() if takes_pattern(mask.shape)}
    return [name for name, mask in candidates.items() if bool((mask.reshape(-1, BLOCK).sum(1) == KEPT).all())]


def semi_structured_speedup(
    model: nn.Module, masks: Mapping[str, Tensor], *, img_size: int, batch_size: int, seconds: float = 1.0
) -> tuple[float | None, str]:
    """Time of a batch with dense weights over its time with 2:4 kernels, both in bf16, and a note on what was measured.

    None, with a note on the reason, where nothing could be measured. `model`: fp32, its masked weights zero, on the device to measure; it is not
    changed. `seconds`: for both contestants, without the warm-up.
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
        except (RuntimeError, NotImplementedError) as error:  # only a trial shows that a driver or a build of torch lacks the kernels
            return None, f"2:4: torch's kernels failed: {error}"
        times = race({"sparse": lambda: sparse(images), "dense": lambda: dense(images)}, device, seconds, alone=False)
    ratio = speedup(times["sparse"], times["dense"], same_kernels=False)
    return ratio, f"2:4: {len(turned)} of {len(names)} matrices by torch's semi-structured kernels, {DTYPE}, batch {batch_size}, beside dense kernels"


def sparsified(model: nn.Module, names: Sequence[str], turn: Callable[[Tensor], Tensor]) -> tuple[nn.Module, list[str], str]:
    """A copy of the model whose linear layers have the named weights in their 2:4 form.

    Returns also the names of the weights that `turn` took, and the reason why it refused another.
    """
    sparse, turned, refused = copy.deepcopy(model), [], "none is the weight of a linear layer"
    for name in names:
        layer = sparse.get_submodule(name.rpartition(".")[0])
        if not isinstance(layer, nn.Linear):
            continue
        try:
            layer.weight = nn.Parameter(turn(layer.weight.detach().contiguous()), requires_grad=False)
            turned.append(name)
        except RuntimeError as error:  # its message names the shapes that the kernels take
            refused = str(error)
    return sparse, turned, refused
