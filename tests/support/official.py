"""A folder of ImageNet's shape and checkpoints in the official formats, both as small as they can be."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.registry import create_model

CLASSES = 1000


def write_imagenet(root: Path, *, classes: int = CLASSES, train: int = 1, spare: int = 0, test: int = 4, size: tuple[int, int] = (40, 32)) -> None:
    """train/<wordnet id>/*.JPEG for so many classes, with one more image in the first `spare` of them; val/ with `test` images, a class each."""
    for number in range(classes):
        for sample in range(train + (number < spare)):
            write_jpeg(root / "train" / wordnet(number) / f"{wordnet(number)}_{sample}.JPEG", [number, sample], size)
    for number in range(test):
        write_jpeg(root / "val" / wordnet(number) / f"ILSVRC2012_val_{number:08}.JPEG", [number, 10_000], size)


def wordnet(number: int) -> str:
    return f"n{1_440_764 + number:08}"


def write_jpeg(path: Path, seed: list[int], size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=80)


def vim_file(path: Path, weights: Mapping[str, Tensor]) -> None:
    """As the main.py of Vim saves: last and averaged weights, optimizer, schedule, scaler and command line."""
    optimizer = {"state": {0: {"step": 1, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-5, "params": [0]}]}
    args = argparse.Namespace(model="vim", batch_size=128, lr=5e-4, opt_betas=None)
    rest: dict[str, Any] = {"optimizer": optimizer, "lr_scheduler": {"t_initial": 300, "base_values": [5e-4]}, "epoch": 299, "scaler": "none"}
    torch.save({"model": weights, "model_ema": weights, "args": args, **rest}, path)


def vmamba_file(path: Path, weights: Mapping[str, Tensor]) -> None:
    """As save_checkpoint_ema of VMamba's utils/utils.py saves, with the settings as a CfgNode of yacs."""
    with yacs_node({"MODEL": {"TYPE": "vssm", "DROP_PATH_RATE": 0.2}, "DATA": {"IMG_SIZE": 224}}) as config:
        rest = {"optimizer": {"state": {}, "param_groups": [{"lr": 1e-5, "params": [0]}]}, "lr_scheduler": {"t_initial": 300}, "max_accuracy": 82.2}
        torch.save({"model": weights, "model_ema": weights, "scaler": {"scale": 2.0}, "epoch": 264, "config": config, **rest}, path)


@contextmanager
def yacs_node(settings: Mapping[str, Any]) -> Iterator[object]:
    """Settings as a yacs.config.CfgNode of the form of yacs 0.1.8: a dictionary with attributes. It can be saved within the block."""

    class CfgNode(dict[str, Any]):
        def __init__(self, content: Mapping[str, Any]) -> None:
            super().__init__({name: CfgNode(value) if isinstance(value, dict) else value for name, value in content.items()})
            self.__dict__.update({"__immutable__": False, "__deprecated_keys__": set(), "__renamed_keys__": {}, "__new_allowed__": False})

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module: Any = ModuleType("yacs.config")
    module.CfgNode = CfgNode
    with patch.dict(sys.modules, {"yacs": ModuleType("yacs"), "yacs.config": module}):
        yield CfgNode(settings)


def mambavision_file(path: Path, weights: Mapping[str, Tensor]) -> None:
    """As timm's CheckpointSaver saves for mambavision/train.py, with the prefix of data parallelism."""
    held = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({"epoch": 309, "arch": "mamba_vision", "state_dict": held, "version": 2, "metric": 82.3, "args": argparse.Namespace(opt="lamb")}, path)


def write_official(path: Path, model: str, weights: Mapping[str, Tensor]) -> None:
    """A checkpoint of a model in the format of its authors."""
    writers = {"vim": vim_file, "vmamba": vmamba_file, "mambavision": mambavision_file}
    writers[model.split("_")[0]](path, weights)


def hollow(model: str, img_size: int = 224) -> dict[str, Tensor]:
    """Weights of a model of any size that take no room in a file: every element of a tensor is the same zero or one in memory."""
    with torch.device("meta"):
        shapes = create_model(model, CLASSES, img_size).state_dict()
    return {name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for name, tensor in shapes.items()}
