"""Loads checkpoint files into our models, strictly."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from models.weight_files import StateDict, read_weights

HEAD = ("head.weight", "head.bias")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")  # of data parallelism, of torch.compile, of what holds the network
ENCODER = "encoder."  # of a network with a decoder, which is left out
MOST_PROBLEMS = 5  # that a message lists


def load_pretrained(model: nn.Module, path: Path, key: str | None = None) -> None:
    """Fills every parameter and buffer of `model` from a file. The head stays as it is if the file's head has another number of classes.

    `key` names the weights in a file that holds several. ValueError: no such file, no weights in it, names or shapes that are missing, unexpected or
    different, or weights that are no finite numbers.
    """
    weights, expected = without_prefixes(read_weights(path, key)), model.state_dict()
    fresh = {name: expected[name] for name in HEAD if _other_classes(weights.get(name), expected.get(name))}
    given = {name: tensor for name, tensor in weights.items() if name not in fresh}
    if misfit := _misfit(given | fresh, expected, model):
        raise ValueError(f"pretrained: {path} {misfit}")
    for name, tensor in given.items():
        if fault := _fault(tensor, expected[name]):
            raise ValueError(f"pretrained: {path}: {name} {fault}")
    if not any(tensor.is_meta for tensor in expected.values()):  # the launcher checks a model that has no memory
        model.load_state_dict(given | fresh)


def without_prefixes(weights: StateDict) -> StateDict:
    """The weights by the network's own names: without a prefix that all names have, or all but the head's. A decoder beside an encoder is dropped."""
    bare = _bare(weights)
    if any(name.startswith(ENCODER) for name in bare):
        bare = _bare({name.removeprefix(ENCODER): tensor for name, tensor in bare.items() if name.startswith(ENCODER)})
    return bare


def _bare(weights: StateDict) -> StateDict:
    while True:
        names = [name for name in weights if not name.startswith("head.")]
        prefix = next((prefix for prefix in PREFIXES if names and all(name.startswith(prefix) for name in names)), None)
        bare = {name.removeprefix(prefix or ""): tensor for name, tensor in weights.items()}
        if prefix is None or len(bare) < len(weights):
            return weights
        weights = bare


def _other_classes(given: Tensor | None, wanted: Tensor | None) -> bool:
    return given is not None and wanted is not None and given.shape[1:] == wanted.shape[1:] and given.shape[0] != wanted.shape[0]


def _misfit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], model: nn.Module) -> str | None:
    """How names and shapes differ from the model's, or None."""
    shapes = [name for name in expected if name in weights and weights[name].shape != expected[name].shape]
    missing, unexpected = [name for name in expected if name not in weights], [name for name in weights if name not in expected]
    if not missing and not unexpected and shapes == ["pos_embed"]:
        return _other_positions(weights["pos_embed"], expected["pos_embed"], model)
    problems = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
    problems += [f"{name} is {tuple(weights[name].shape)}, the model has {tuple(expected[name].shape)}" for name in shapes]
    if not problems:
        return None
    more = f" and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    return f"does not fit the model: {'; '.join(problems[:MOST_PROBLEMS])}{more}"


def _other_positions(given: Tensor, wanted: Tensor, model: nn.Module) -> str:
    """The remedy for weights of another image size or another number of patches."""
    patches, has = (math.prod(tensor.shape[1:-1]) - 1 for tensor in (given, wanted))
    side, remedy = math.isqrt(max(patches, 0)), "set data.img_size to that of the checkpoint"
    projection = getattr(getattr(model, "patch_embed", None), "proj", None)
    if side > 0 and side**2 == patches and isinstance(projection, nn.Conv2d):
        remedy = f"set data.img_size: {(side - 1) * projection.stride[0] + projection.kernel_size[0]}"
    return (
        f"is of another image size: its pos_embed has {patches} patches, the model has {has}, and they are not resampled; {remedy}, "
        "or patch_size and stride to those of the checkpoint"
    )


def _fault(given: Tensor, wanted: Tensor) -> str | None:
    """Why a tensor of the right shape holds no weights, with the remedy, or None."""
    if given.is_meta or given.layout != torch.strided:
        return "holds no values: save the weights themselves, as dense tensors"
    if not wanted.is_floating_point():  # a counter of batch normalisation
        return None
    if not given.is_floating_point():
        return (
            f"is {str(given.dtype).removeprefix('torch.')}, and weights must be floating-point numbers: give the checkpoint before its quantisation"
        )
    wide = given if given.element_size() > 1 else given.float()  # torch has no isfinite for 8 bits
    broken = wide.numel() - int(torch.isfinite(wide).sum())
    return f"holds NaN or infinity, {broken} of its {wide.numel()} values: take a checkpoint from before the training diverged" if broken else None
