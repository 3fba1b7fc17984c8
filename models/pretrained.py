"""Loads checkpoint files into our models, strictly: only the head may be missing or of other classes, and positions of another image size."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.positions import resampled, side_of
from models.pruning.layer_kinds import listed
from models.weight_files import StateDict, read_weights

# the second pair: of MambaOut; the third: of VMamba
HEAD = ("head.weight", "head.bias", "head.fc.weight", "head.fc.bias", "classifier.head.weight", "classifier.head.bias")
POSITIONS = "pos_embed"
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")  # of data parallelism, of torch.compile, of what holds the network
ENCODER = "encoder."  # of a network with a decoder, which is left out
MOST_PROBLEMS = 5  # that a message lists


@dataclass(frozen=True, kw_only=True)
class Differences:
    """What of a network is not as it stands in the file that filled it, in sentences."""

    fresh_head: str | None = None  # why the head is fresh
    headless: bool = False  # the head is fresh because the file has none, whatever the classes
    positions: str | None = None  # how position embeddings were resampled

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that there are."""
        return tuple(sentence for sentence in (self.fresh_head, self.positions) if sentence is not None)


def load_pretrained(model: nn.Module, path: Path, key: str | None = None) -> Differences:
    """Fills every parameter and buffer of `model` from a file, and returns what of it is not as it stands there.

    The head stays as it is if the file has none, or one of another number of classes. Position embeddings of another number of patches are resampled.
    `key` names the weights in a file that holds several. ValueError: no such file, no weights in it, names or shapes that are missing, unexpected or
    different, or weights that are no finite numbers.
    """
    weights, expected = without_prefixes(read_weights(path, key)), model.state_dict()
    if renamed := getattr(model, "as_saved_now", None):
        weights = renamed(weights)
    head = head_names(model)
    headless = _headless(weights, expected, head)
    fresh = {name: expected[name] for name in headless or head if headless or _other_classes(weights.get(name), expected.get(name))}
    given = {name: tensor for name, tensor in weights.items() if name not in fresh}
    sides = _sides(given.get(POSITIONS), expected.get(POSITIONS))
    positions = {POSITIONS: expected[POSITIONS]} if sides else {}
    if misfit := _misfit(given | fresh | positions, expected):
        raise ValueError(f"pretrained: {path} {misfit}")
    for name, tensor in given.items():
        if fault := _fault(tensor, expected[name]):
            raise ValueError(f"pretrained: {path}: {name} {fault}")
    if sides:
        given[POSITIONS] = resampled(given[POSITIONS], sides[1], model)
    if not any(tensor.is_meta for tensor in expected.values()):  # the launcher checks a model that has no memory
        model.load_state_dict(given | fresh)
    return Differences(
        fresh_head=next((_fresh_head(weights.get(name), tensor) for name, tensor in fresh.items()), None),
        headless=bool(headless),
        positions=f"position embeddings were resampled from {sides[0]} x {sides[0]} to {sides[1]} x {sides[1]} patches, bicubic" if sides else None,
    )


def _sides(given: Tensor | None, wanted: Tensor | None) -> tuple[int, int] | None:
    """Patches along a side, in a file and in the model, if they differ and can be resampled."""
    if given is None or wanted is None or given.shape == wanted.shape or given.shape[-1] != wanted.shape[-1] or given.dim() != wanted.dim():
        return None
    old, new = side_of(given), side_of(wanted)
    return None if old is None or new is None else (old, new)


def _fresh_head(given: Tensor | None, wanted: Tensor) -> str:
    if given is None:
        return "the head is fresh, because the file has none"
    return f"the head is fresh, because the file's has {given.shape[0]} classes and the data {wanted.shape[0]}"


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


def head_names(model: nn.Module) -> tuple[str, ...]:
    """The names that the parameters of a model's last layer may have."""
    if not hasattr(model, "timm_name"):
        return HEAD
    return tuple(f"{layer}.{part}" for layer in listed(model, "classifier") for part in ("weight", "bias"))


def _headless(weights: StateDict, expected: Mapping[str, Tensor], head: tuple[str, ...]) -> list[str]:
    """The names of the model's head if the file has nothing of it, or nothing of its last layer; else none."""
    last = [name for name in head if name in expected]
    if any(name in weights for name in last):
        return []
    parts = [name for name in expected if name in last or name.startswith(("head.", "classifier."))]
    return last if any(name in weights for name in parts) else parts


def _other_classes(given: Tensor | None, wanted: Tensor | None) -> bool:
    return given is not None and wanted is not None and given.shape[1:] == wanted.shape[1:] and given.shape[0] != wanted.shape[0]


def _misfit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """How names and shapes differ from the model's, or None."""
    shapes = [name for name in expected if name in weights and weights[name].shape != expected[name].shape]
    missing, unexpected = [name for name in expected if name not in weights], [name for name in weights if name not in expected]
    problems = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
    problems += [f"{name} is {tuple(weights[name].shape)}, the model has {tuple(expected[name].shape)}" for name in shapes]
    if not problems:
        return None
    more = f" and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    return f"does not fit the model: {'; '.join(problems[:MOST_PROBLEMS])}{more}"


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
    if wide.sum().isfinite():  # one pass, and nothing of the tensor's size; a sum may overflow
        return None
    broken = wide.numel() - int(torch.isfinite(wide).sum())
    return f"holds NaN or infinity, {broken} of its {wide.numel()} values: take a checkpoint from before the training diverged" if broken else None
