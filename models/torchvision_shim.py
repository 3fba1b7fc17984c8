"""Imports timm on a machine without CUDA: timm needs torchvision, whose wheel is linked against CUDA."""

import importlib
import sys
from types import ModuleType
from typing import Any

_definitions: list[Any] = []  # torch forgets operators whose Library is garbage-collected; filled at most once per process


def load_torchvision() -> ModuleType:
    """torchvision. If its compiled part does not load, its two detection operators are declared, but cannot run."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch's own
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]  # torch's
    _definitions.append(library)
    return importlib.import_module("torchvision")


def load_timm() -> ModuleType:
    """timm, imported after `load_torchvision`."""
    load_torchvision()
    return importlib.import_module("timm")
