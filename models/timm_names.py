"""Our models in timm's registry: after `import models.timm_names`, `timm.create_model("vssm_bench_vim_tiny")` builds vim_tiny.

timm reads a name with a slash as that of a repository of the hub or of a folder, and refuses it without a source, so `vssm_bench/vim_tiny` cannot be
registered: the prefix ends in an underscore instead. `checkpoint_path` loads a cell's model.safetensors strictly. Of the keyword arguments of
timm.create_model, `num_classes`, `img_size` and our own options of the model have an effect; there are no pretrained weights to download.
"""

import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from models.registry import MODELS, create_model
from models.torchvision_shim import load_timm

PREFIX = "vssm_bench_"
IGNORED = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # timm gives them to every function


def entry_point(name: str) -> Callable[..., nn.Module]:
    """timm's function of one of our models."""

    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise ValueError(f"{PREFIX}{name} has no weights to download: give the file of a cell or an official one as checkpoint_path")
        if options.pop("in_chans", 3) != 3:
            raise ValueError(f"{PREFIX}{name} takes images of three channels: leave in_chans out")
        network = create_model(name, **{option: value for option, value in options.items() if option not in IGNORED})
        network.num_classes = options.get("num_classes", 1000)  # timm's scripts read it, and the two below
        size = options.get("img_size") or MODELS[name].img_size
        network.pretrained_cfg = network.default_cfg = settings(size, options.get("num_classes", 1000))  # type: ignore[assignment]
        return network

    build.__name__ = build.__qualname__ = PREFIX + name
    build.__module__ = __name__
    return build


def settings(img_size: int, num_classes: int) -> dict[str, Any]:
    """What timm's scripts ask a network for its images: size, normalisation, crop."""
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    return {
        "num_classes": num_classes,
        "input_size": (3, img_size, img_size),
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
    }


def register() -> None:
    """Puts every model into timm's registry."""
    load_timm()
    from timm.models import register_model

    for name in MODELS:
        build = entry_point(name)
        setattr(sys.modules[__name__], build.__name__, build)
        register_model(build)


register()
