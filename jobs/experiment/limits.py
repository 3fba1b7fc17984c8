"""What a value of the right type must also satisfy, in one place. Knobs of models and methods are checked by their own dataclasses."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jobs.experiment.specs import ClusterSpec, DataSpec, RecipeSpec, image_size
from models.pruning.base import Budget, PruningMethod

Limit = tuple[str, Callable[[Any], bool]]  # what must hold, in words and in Python; None passes
Broken = Iterator[tuple[str, str]]  # field, message

AT_LEAST_0: Limit = ("0 or more", lambda value: value >= 0)
AT_LEAST_1: Limit = ("1 or more", lambda value: value >= 1)
ABOVE_0: Limit = ("above 0", lambda value: value > 0)
SHARE: Limit = ("0 or more and below 1", lambda value: 0 <= value < 1)

RECIPE: Mapping[str, Limit] = {
    "epochs": AT_LEAST_0,
    "finetune_epochs": AT_LEAST_0,
    "batch_size": AT_LEAST_1,
    "micro_batch_size": AT_LEAST_1,
    "lr": ABOVE_0,
    "finetune_lr": ABOVE_0,
    "min_lr": AT_LEAST_0,
    "warmup_epochs": AT_LEAST_0,
    "weight_decay": AT_LEAST_0,
    "betas": ("0 or more and below 1 each", lambda value: all(0 <= beta < 1 for beta in value)),
    "momentum": SHARE,
    "label_smoothing": SHARE,
    "clip_grad": ABOVE_0,
    "ema": ("above 0 and below 1", lambda value: 0 < value < 1),
}
DATA: Mapping[str, Limit] = {
    "img_size": AT_LEAST_1,
    "val_fraction": ("above 0 and below 1", lambda value: 0 < value < 1),
    "split_seed": AT_LEAST_0,
    "samples": AT_LEAST_1,
    "classes": ("2 or more", lambda value: value >= 2),
    "shift_px": AT_LEAST_0,
    "crop_scale": ("[low, high] with 0 < low <= high <= 1", lambda value: 0 < value[0] <= value[1] <= 1),
    "eval_crop": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "max_resolution": AT_LEAST_1,
}
CLUSTER: Mapping[str, Limit] = {
    "max_parallel": AT_LEAST_1,
    "nodes": AT_LEAST_1,
    "tasks_per_node": AT_LEAST_1,
    "cpus_per_task": AT_LEAST_1,
    "gpus_per_node": AT_LEAST_0,
    "mem_gb": ABOVE_0,
    "timeout_min": AT_LEAST_1,
    "stages_per_job": AT_LEAST_1,
    "checkpoint_steps": AT_LEAST_1,
    "profile_s": ABOVE_0,
    "profile_batch": AT_LEAST_1,
}
# What each source needs of `path` and `test_path`: True: needed, False: refused, None: may be given.
PATHS: Mapping[str, tuple[bool | None, bool | None]] = {
    "digits": (False, False),
    "synthetic": (False, False),
    "cifar10": (True, False),
    "cifar100": (True, False),
    "imagefolder": (True, None),
    "beton": (True, True),
}


# Images that a source has for training; the others are counted when their files are read.
IMAGES: Mapping[str, int] = {"digits": 1438, "cifar10": 50_000, "cifar100": 50_000}


def training_images(data: DataSpec) -> int | None:
    """Images that are left for training once the validation split is carved from them; None where only the files know."""
    images = data.samples if data.source == "synthetic" else IMAGES.get(data.source)
    return None if images is None else images - round(data.val_fraction * images)


def batch_clash(recipe: RecipeSpec, data: DataSpec) -> str | None:
    """Why a recipe makes no step on a data set; None where it makes some, or nobody knows yet."""
    images = training_images(data)
    if images is None or recipe.batch_size <= images:
        return None
    apart = f"val_fraction {data.val_fraction:g} is kept apart"
    return f"{recipe.batch_size} is more than the {images} training images of {data.source} ({apart}); at most {images}"


def step_beyond(method: PruningMethod, budget: Budget, steps_per_epoch: int) -> str | None:
    """Which step a method rewinds to that its stage never makes; None where it makes them all, or the method cannot use the budget at all."""
    try:
        stages = method.stages(budget)
    except ValueError:
        return None
    late = ((stage, step) for stage in stages for step in stage.keep_steps if step > stage.epochs * steps_per_epoch)
    stage, step = next(late, (None, None))
    return f"rewinds to step {step}, and {stage.name} ends with step {stage.epochs * steps_per_epoch}" if stage else None


def broken(spec: Any, limits: Mapping[str, Limit]) -> Broken:
    """Every field that breaks its limit."""
    for name, (words, holds) in limits.items():
        value = getattr(spec, name)
        if value is not None and not holds(value):
            yield name, f"must be {words}, got {list(value) if isinstance(value, tuple) else value}"


def recipe_clashes(recipe: RecipeSpec, ranks: int) -> Broken:
    """Fields of a recipe that are right alone and wrong together; `ranks` share its batch."""
    if recipe.epochs + recipe.finetune_epochs == 0:
        yield "epochs", "epochs and finetune_epochs are both 0: nothing is trained"
    if recipe.epochs > 0 and recipe.warmup_epochs > recipe.epochs:
        yield "warmup_epochs", f"the warm-up, {recipe.warmup_epochs:g} epochs, is longer than the training, {recipe.epochs}"
    for name in ("lr", "finetune_lr"):
        rate = getattr(recipe, name)
        if rate is not None and recipe.min_lr > rate:
            yield "min_lr", f"{recipe.min_lr:g} is above {name}, {rate:g}"
    if recipe.optimizer == "lamb" and recipe.zero_stage:
        yield (
            "zero_stage",
            f"lamb scales each layer's update by the whole layer's norm, and zero_stage {recipe.zero_stage} cuts layers across ranks; only 0 is valid",
        )
    share = max(1, ranks) * (recipe.micro_batch_size or 1)
    if recipe.batch_size % share:
        micro = f" x micro_batch_size {recipe.micro_batch_size}" if recipe.micro_batch_size else ""
        yield "batch_size", f"{recipe.batch_size} cannot be divided by {ranks} ranks{micro}; a multiple of {share} can"


def data_clashes(data: DataSpec) -> Broken:
    """Fields of a data set that are right alone and wrong together. Nothing is looked for on disk."""
    for name, needed in zip(("path", "test_path"), PATHS[data.source]):
        if needed and getattr(data, name) is None:
            yield name, f"source {data.source} needs it"
        if needed is False and getattr(data, name) is not None:
            yield name, f"source {data.source} takes none"
    size = image_size(data)
    if data.augment == "shift" and size <= data.shift_px:
        yield "shift_px", f"must be below the image's size, {size} pixels, got {data.shift_px}"


def cluster_clashes(cluster: ClusterSpec) -> Broken:
    """Fields of a cluster that are right alone and wrong together."""
    if cluster.kind == "debug" and cluster.ranks != 1:
        yield "tasks_per_node", f"debug runs in the launcher's own process, with one rank, not {cluster.ranks}; kind: local takes several"
    if cluster.kind == "local" and cluster.nodes != 1:
        yield "nodes", f"local has one node, not {cluster.nodes}; kind: slurm takes several"
