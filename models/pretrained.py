"""Loads official checkpoint files into our models, strictly."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

WRAPPERS = ("model", "state_dict")  # hustvl/Vim, NVlabs/MambaVision
HEAD = ("head.weight", "head.bias")


def load_pretrained(model: nn.Module, path: Path) -> None:
    """Fills every parameter and buffer of `model` from a file. The head stays as it is if the file's head has another number of classes.

    The file is read with weights_only, so no code in it runs. ValueError: no such file, no weights in it, or names or shapes that are missing,
    unexpected or different.
    """
    if not path.is_file():
        raise ValueError(f"pretrained: there is no file {path}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # the command line that official files store with the weights
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"pretrained: {path} is no checkpoint that torch.load(weights_only=True) reads: {error}") from error
    weights, expected = _weights(content, path), model.state_dict()
    weights |= {name: expected[name] for name in HEAD if _other_classes(weights.get(name), expected.get(name))}
    problems = [f"missing {name}" for name in expected if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in expected]
    problems += [f"{name} is {tuple(weights[name].shape)}, the model has {tuple(tensor.shape)}" for name, tensor in expected.items()
                 if name in weights and weights[name].shape != tensor.shape]  # fmt: skip
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"pretrained: {path} does not fit the model: {'; '.join(problems[:5])}{more}")
    if not any(tensor.is_meta for tensor in expected.values()):  # the launcher checks a model that has no memory
        model.load_state_dict(weights)


def _other_classes(given: Tensor | None, wanted: Tensor | None) -> bool:
    return given is not None and wanted is not None and given.shape[1:] == wanted.shape[1:] and given.shape[0] != wanted.shape[0]


def _weights(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict in a file, without its wrappers and the prefixes of its names."""
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"pretrained: {path} holds no state dict, neither itself nor under {' or '.join(WRAPPERS)}")
    for prefix in ("module.", "encoder."):  # of data parallelism; of a network with a decoder, which is left out
        if any(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)}
    return content
