"""timm on a machine without CUDA: the registry's torchvision wheel is linked against CUDA, and timm does not import without torchvision."""

import importlib
import sys
from types import ModuleType
from typing import Any

_definitions: list[Any] = []  # torch forgets operators whose Library is collected; filled at most once a process


def load_torchvision() -> ModuleType:
    """torchvision, with its two detection operators declared (never run) where its compiled part does not load."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _definitions.append(library)
    return importlib.import_module("torchvision")


def load_timm() -> ModuleType:
    """timm, imported after torchvision was made to load."""
    load_torchvision()
    return importlib.import_module("timm")
