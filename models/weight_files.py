"""Reads the weights in a checkpoint file of safetensors or torch.save. No code in the file runs.

A file may hold several sets of weights, such as the last weights and their moving average (EMA). `pretrained_key` names the set. Without it, the last
weights are taken.
"""

import argparse
import re
import sys
import warnings
from collections import OrderedDict
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any, TypeGuard

import torch
from torch import Tensor

from models.text import valid_names

LAST = (
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "net",
    "network",
    "checkpoint",
    "weights",
)  # names of the last weights; the first that is there is taken
AVERAGED = ("model_ema", "state_dict_ema", "ema", "ema_state_dict", "model_ema_state_dict", "ema_model")
START_BYTES = 512
TORCH = (b"PK", b"\x80")  # beginnings of files of torch.save
UNSAFE = re.compile(r"Unsupported (?:global|class|operand)\W+(?:GLOBAL )?([A-Za-z_][\w.]*)")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")

StateDict = dict[str, Tensor]


def read_weights(path: Path, key: str | None = None) -> StateDict:
    """The weights in a file, with their names as they are there. A choice among several sets is printed. ValueError names the file and the remedy."""
    with torch.device("cpu"):  # the launcher checks a model on the meta device
        content = _content(path)
    sets: dict[str, StateDict] = {"": content} if _is_state_dict(content) else _named_sets(content)
    if "" in sets and (parts := _parts(sets[""])):
        sets = parts
    if key is not None:
        if key not in sets:
            named = [name for name in sets if name]
            only = "holds one set of weights, which has no name: leave pretrained_key out"
            raise ValueError(f"pretrained: {path} " + (f"holds no weights under {key!r}{valid_names(key, named)}" if named else only))
        return sets[key]
    chosen = next((name for name in ("", *LAST, *AVERAGED) if name in sets), None)
    if chosen is None:
        alone = "; save the weights of its network alone: torch.save(network.state_dict(), 'weights.pth')"
        remedy = f"; it holds weights under {', '.join(sets)}: choose with pretrained_key" if sets else alone
        raise ValueError(f"pretrained: {path} holds no state dict, neither itself nor under {' or '.join(LAST)}{remedy}")
    if chosen in AVERAGED or any(name in sets for name in AVERAGED):
        others = ", ".join(name for name in sets if name != chosen)
        choice = f"; pretrained_key chooses another: {others}" if others else ", the only weights in the file"
        print(f"pretrained: {path}: the weights under {chosen!r} are loaded{choice}", file=sys.stderr, flush=True)
    return sets[chosen]


def _is_state_dict(content: object) -> TypeGuard[StateDict]:
    if not isinstance(content, dict) or not content:
        return False
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())


def _named_sets(content: object) -> dict[str, StateDict]:
    if not isinstance(content, dict):
        return {}
    sets = {}
    for name, value in content.items():
        inner = {} if _is_state_dict(value) or name not in LAST + AVERAGED else _named_sets(value)  # a whole checkpoint under one name
        chosen = next((each for each in LAST if each in inner), None)
        if isinstance(name, str) and (chosen or _is_state_dict(value)):
            sets[name] = inner[chosen] if chosen else value
    return sets


def _parts(weights: StateDict) -> dict[str, StateDict]:
    """The sets in a state dict that holds the last and the averaged weights side by side, as in `model.x` and `model_ema.x`; empty for any other."""
    parts: dict[str, StateDict] = {}
    for name, tensor in weights.items():
        first, _, rest = name.partition(".")
        parts.setdefault(first, {})[rest] = tensor
    both = any(name in AVERAGED for name in parts) and all(name in LAST + AVERAGED for name in parts)
    return parts if both else {}


def _content(path: Path) -> Any:
    """All that a file holds. ValueError: it cannot be read, or is no checkpoint."""
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except FileNotFoundError:
        raise ValueError(f"pretrained: there is no file {path}") from None
    except IsADirectoryError:
        raise ValueError(f"pretrained: {path} is a folder: give the checkpoint file in it") from None
    except OSError as error:
        raise ValueError(f"pretrained: {path} cannot be read: {error.strerror}") from None
    if other := _other_content(start):
        raise ValueError(f"pretrained: {path} is no checkpoint: {other}")
    return _safetensors(path) if _looks_like_safetensors(start, path) else _torch_file(path, start)


def _other_content(start: bytes) -> str | None:
    """A known kind of file that stands in the place of a checkpoint, and the remedy."""
    text = start.lstrip().lower()
    if not start:
        return "it is empty; copy it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; get the file itself with: git lfs pull"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, perhaps of a download that failed; download it again"
    if text.startswith((b"{", b"[")):
        return "it is text in JSON, such as an index of weights in several files; give the file that holds the weights, all in one"
    return None


def _looks_like_safetensors(start: bytes, path: Path) -> bool:
    return start[8:9] == b"{" or (path.suffix == ".safetensors" and not start.startswith(TORCH))


def _safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path, device="cpu"))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"pretrained: {path} is no checkpoint: a safetensors file that is damaged or cut short ({error}); copy it again") from error


def _torch_file(path: Path, start: bytes) -> Any:
    try:
        with path.open("rb") as file, torch.serialization.safe_globals(_harmless()), warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)  # of a path, torch would take the ending for the kind
    except Exception as error:  # torch raises nearly anything
        raise ValueError(f"pretrained: {path} is no checkpoint {_reason(str(error), start, path)}") from error


def _reason(message: str, start: bytes, path: Path) -> str:
    """Why torch.load refused a file, and the remedy, in one line."""
    if "TorchScript" in message:
        return "of weights: it is a TorchScript archive; save the state_dict() of its network instead"
    if unsafe := UNSAFE.search(message):
        rest = f"torch.save(torch.load({str(path)!r}, weights_only=False)['model'], 'weights.pth'), or .state_dict() for ['model'] of a whole network"
        return f"that loads without running code: it also holds a {unsafe[1]}; if you trust it, save the weights alone: {rest}"
    if start.startswith(TORCH):
        line = (ESCAPES.sub("", message).strip().splitlines() or ["no more is known"])[0][:120]
        return f"that can be read: it is damaged or cut short ({line}); copy it again"
    return "at all: neither of torch.save nor of safetensors"


@cache
def _harmless() -> list[Any]:
    """The types beside tensors that checkpoints hold and that run nothing: a command line, settings, paths, times, NumPy's numbers and arrays."""
    import numpy as np

    try:
        from numpy._core import multiarray
    except ImportError:  # NumPy 1
        from numpy.core import multiarray  # type: ignore[no-redef]
    functions = [multiarray.scalar, multiarray._reconstruct]
    named = [(function, f"numpy.{core}.multiarray.{function.__name__}") for function in functions for core in ("core", "_core")]
    dtypes = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?SU"}
    paths: list[Any] = [(kind, f"{module}.{kind.__name__}") for kind in (PosixPath, PurePosixPath) for module in ("pathlib", "pathlib._local")]
    plain = [argparse.Namespace, datetime, timedelta]
    settings = (OrderedDict, "yacs.config.CfgNode")  # of VMamba, VSSD and Swin; what torch fills must be a dictionary that it knows
    return [*plain, settings, *paths, np.dtype, np.ndarray, *dtypes, *named]
