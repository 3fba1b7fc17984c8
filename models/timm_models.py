"""Every image classifier of timm, as `timm/<name>`, with timm's arguments as its options. No torch at import.

Nothing is downloaded: a name with a tag, such as timm/resnet50.a1_in1k, stands for weights, and needs the file that holds them as `pretrained`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from models.configs import needs_pretrained
from models.text import did_you_mean, valid_names
from models.timm_source import arguments, files, fixed, tags

if TYPE_CHECKING:
    from torch import nn

PREFIX = "timm/"
SIZE = 224  # pixels, of a network whose caller gives no size
REFUSED: Mapping[str, str] = {  # arguments of timm's that the harness owns
    "num_classes": "the number of classes is that of the data: leave num_classes out",
    "img_size": "the size of the images is that of the data: give img_size under data",
    "in_chans": "images have three channels here: leave in_chans out",
    "checkpoint_path": "give the file of the weights as pretrained",
    "pretrained_cfg": "nothing is downloaded here: give the file of the weights as pretrained",
    "pretrained_cfg_overlay": "nothing is downloaded here: give the file of the weights as pretrained",
    "cache_dir": "nothing is downloaded here: give the file of the weights as pretrained",
    "features_only": "a network without a classifier cannot be trained here: leave features_only out",
    "drop_path": "timm's name of stochastic depth is drop_path_rate",
    "scriptable": "leave it out: networks are not compiled by TorchScript here",
    "exportable": "leave it out: networks are not exported to ONNX here",
}


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """What every model of timm takes. `timm_options` adds the arguments of one of them; null leaves an argument as timm has it."""

    pretrained: str | None = None  # path of a checkpoint of timm's
    pretrained_key: str | None = None  # the name of the weights in a checkpoint that holds several; None: the last, not the averaged

    def check(self) -> None:
        """Raises ValueError if options contradict each other."""
        needs_pretrained(self.pretrained, self.pretrained_key)


def is_timm(name: str) -> bool:
    """True for a name that begins as those of timm's models do."""
    return name.startswith(PREFIX)


def architecture(name: str) -> str:
    """timm's name of the network, without the tag of its weights."""
    return name.removeprefix(PREFIX).partition(".")[0]


def tag_problem(name: str, options: Mapping[str, Any]) -> str | None:
    """Why a name with a tag, which names weights, stands for none; None if it does, or has no tag."""
    tag = name.removeprefix(PREFIX).partition(".")[2]
    if not tag or options.get("pretrained") is not None:
        return None
    return f"the tag {tag} names weights, and nothing is downloaded here: give their file as pretrained, or leave the tag out of the name"


def timm_refused(name: str) -> dict[str, str]:
    """Arguments of timm's that a grid cannot set, each with the reason and what to do."""
    own = {argument: f"{name} sets {argument} itself; choose another of timm's models" for argument in fixed(architecture(name))}
    return {**own, **REFUSED}


def timm_problem(name: str) -> str | None:
    """Why timm has no such classifier, with the nearest name; None if it has."""
    base, _, tag = name.removeprefix(PREFIX).partition(".")
    if base not in files():
        near = did_you_mean(base, files()).replace("'", f"'{PREFIX}", 1)
        return f"unknown model {name!r}{near or ';'} `python -m models.timm_source` prints all {len(files())}"
    if not arguments(base):
        return f"{name} is no image classifier: its class in timm takes no num_classes"
    if tag and tag not in tags(base):
        return f"unknown tag {tag!r} of {PREFIX}{base}{valid_names(tag, tags(base)) if tags(base) else '; it has none'}"
    return None


@cache
def timm_options(name: str) -> type[TimmConfig]:
    """The dataclass of the options that a model takes. ValueError: an unknown name."""
    if problem := timm_problem(name):
        raise ValueError(problem)
    base = architecture(name)
    options = [(argument, hint | None, None) for argument, hint in arguments(base).items() if argument not in REFUSED]
    return make_dataclass("TimmOptions", options, bases=(TimmConfig,), frozen=True, kw_only=True)


def build_timm(name: str, config: Any, img_size: int, num_classes: int) -> nn.Module:
    """timm's network with fresh weights. ValueError: an argument that this model does not take, or an image size that it cannot be built for."""
    from models.torchvision_shim import load_timm

    base = architecture(name)
    options = {argument: value for argument in arguments(base) if (value := getattr(config, argument, None)) is not None}
    sized = {"img_size": img_size} if "img_size" in arguments(base) else {}
    try:
        network: nn.Module = load_timm().create_model(name.removeprefix(PREFIX), num_classes=num_classes, in_chans=3, **sized, **options)
    except Exception as error:  # timm checks with assertions, and by running into errors of any kind
        raise ValueError(why_not_built(name, error, options, img_size)) from error
    network.timm_name, network.timm_img_size = name, img_size  # type: ignore[assignment]  # for those that look into the network, such as pruning
    return network


def why_not_built(name: str, error: Exception, options: Mapping[str, Any], img_size: int) -> str:
    """Why timm did not build a network, with the arguments that it was given."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TypeError) and (named := [argument for argument in options if f"'{argument}'" in reason]):
        return f"{name} does not take {named[0]}: leave it out ({reason})"
    given = ", ".join(f"{argument} {value}" for argument, value in options.items())
    return f"timm does not build it for images of {img_size} px{f' with {given}' if given else ''}: {reason}"


def check_logits(network: nn.Module, img_size: int, num_classes: int) -> None:
    """ValueError unless the network, on the meta device, turns images of this size into logits. It is left in evaluation mode."""
    import torch

    try:
        with torch.no_grad():
            output = network.eval()(torch.empty(1, 3, img_size, img_size, device="meta"))
    except NotImplementedError:  # of an operation that needs memory: the first step will tell
        return
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{network.timm_name} does not run on images of {img_size} px: {reason}") from error
    if getattr(output, "shape", None) != (1, num_classes):
        shape = " x ".join(map(str, output.shape)) if hasattr(output, "shape") else type(output).__name__
        raise ValueError(
            f"{network.timm_name} gives an output of shape {shape}, not one number for each class: leave out global_pool, or choose another"
        )
