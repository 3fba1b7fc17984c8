"""The rules that settings of the right type must also keep: bounds of single fields, and fields that exclude each other.

They hold for a grid, which reports the line of each mistake, and for callers of `jobs.data.prepare` and the engine alike. The options of models and
the knobs of methods have theirs in their own dataclasses (`models.configs`, `models.pruning`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.experiment.augment_limits import PROBABILITY, augment_conflicts, images_of_epoch
from jobs.experiment.containers import container_conflicts
from jobs.experiment.sources import SOURCES
from jobs.experiment.specs import ClusterSpec, DataSpec, ModelSpec, RecipeSpec, image_size
from models.pruning.base import Budget, PruningMethod
from models.typed import ABOVE_0, AT_LEAST_0, AT_LEAST_1, FRACTION, Limit

BETWEEN_0_AND_1 = Limit(words="above 0 and below 1", holds=lambda value: 0 < value < 1)
ABOVE_0_TO_1 = Limit(words="above 0 and at most 1", holds=lambda value: 0 < value <= 1)

RECIPE: Mapping[str, Limit] = {
    "epochs": AT_LEAST_0,
    "finetune_epochs": AT_LEAST_0,
    "batch_size": AT_LEAST_1,
    "micro_batch_size": AT_LEAST_1,
    "lr": ABOVE_0,
    "finetune_lr": ABOVE_0,
    "min_lr": AT_LEAST_0,
    "warmup_epochs": AT_LEAST_0,
    "warmup_lr": AT_LEAST_0,
    "cooldown_epochs": AT_LEAST_0,
    "weight_decay": AT_LEAST_0,
    "layer_decay": ABOVE_0_TO_1,
    "betas": Limit(words="0 or more and below 1 each", holds=lambda betas: all(0 <= beta < 1 for beta in betas)),
    "opt_eps": ABOVE_0,
    "momentum": FRACTION,
    "bce_threshold": FRACTION,
    "label_smoothing": FRACTION,
    "drop_path": FRACTION,
    "clip_grad": ABOVE_0,
    "ema": BETWEEN_0_AND_1,
    "mesa": AT_LEAST_0,
    "mesa_start": FRACTION,
    "color_jitter": ABOVE_0,
    "random_erase": PROBABILITY,
    "random_erase_count": Limit(words="1 to 100", holds=lambda count: 1 <= count <= 100),  # more would share draws with mixing
    "mixup": AT_LEAST_0,
    "cutmix": AT_LEAST_0,
    "mixup_prob": PROBABILITY,
    "mixup_switch_prob": PROBABILITY,
    "mixup_off_epoch": AT_LEAST_1,
    "repeated_augment": AT_LEAST_1,
}
DATA: Mapping[str, Limit] = {
    "img_size": AT_LEAST_1,
    "val_fraction": BETWEEN_0_AND_1,  # every stage is validated, so the split cannot be empty
    "split_seed": AT_LEAST_0,
    "samples": Limit(words="4 or more", holds=lambda samples: samples >= 4),  # the test set has a quarter of them
    "classes": Limit(words="2 or more", holds=lambda classes: classes >= 2),
    "shift_px": AT_LEAST_0,
    "crop_scale": Limit(words="[low, high] with 0 < low <= high <= 1", holds=lambda scale: 0 < scale[0] <= scale[1] <= 1),
    "eval_crop": ABOVE_0_TO_1,
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
NOTIFY: Mapping[str, Limit] = {
    "command": Limit(words="a command for the shell, not blank", holds=lambda command: bool(command.strip()) and "\0" not in command),
    "on": Limit(words="end, first_failure or both", holds=lambda events: 0 < len(events) == len(set(events))),
    "timeout_s": Limit(words="1 to 600", holds=lambda seconds: 1 <= seconds <= 600),
}
PREPARE: Mapping[str, Limit] = {"jobs": AT_LEAST_1, "cpus_per_task": AT_LEAST_1, "mem_gb": ABOVE_0, "timeout_min": AT_LEAST_1}


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A rule that a field breaks."""

    field: str
    rule: str  # 'must be above 0', or a whole sentence
    value: Any = None  # the field's, as YAML has it, if the rule is about this value; else None

    def __str__(self) -> str:
        """The rule and the value that breaks it."""
        return self.rule if self.value is None else f"{self.rule}, got {self.value}"


def violations(spec: Any, limits: Mapping[str, Limit]) -> Iterator[Violation]:
    """Every field whose value is beyond its limit. None is within any limit."""
    for name, limit in limits.items():
        value = getattr(spec, name)
        if value is not None and not limit.holds(value):
            yield Violation(field=name, rule=f"must be {limit.words}", value=list(value) if isinstance(value, tuple) else value)


def data_conflicts(data: DataSpec) -> Iterator[Violation]:
    """Fields of a data set that are right alone and wrong together. No file is looked for."""
    source = SOURCES[data.source]
    for name, needed in (("path", source.path), ("test_path", source.test_path)):
        if needed and getattr(data, name) is None:
            yield Violation(field=name, rule=f"source {data.source} needs it")
        if needed is False and getattr(data, name) is not None:
            yield Violation(field=name, rule=f"source {data.source} takes no {name}")
    if data.test_labels is not None and data.source != "imagefolder":
        yield Violation(field="test_labels", rule=f"source {data.source} takes no test_labels")
    if empty := empty_validation(data):
        yield Violation(field="val_fraction", rule=empty)
    size = image_size(data)
    if data.augment == "shift" and data.shift_px >= size:
        yield Violation(field="shift_px", rule=f"must be below the image's size, {size} pixels", value=data.shift_px)
    if data.max_resolution is not None and data.max_resolution < size:
        yield Violation(field="max_resolution", rule=f"must be at least img_size, {size}", value=data.max_resolution)


def data_violations(data: DataSpec) -> list[Violation]:
    """Every rule that a data set breaks; fields are held against each other only if each is right alone."""
    return [*violations(data, DATA)] or [*data_conflicts(data)]


def recipe_conflicts(recipe: RecipeSpec, ranks: int) -> Iterator[Violation]:
    """Fields of a recipe that are right alone and wrong together, on this number of ranks."""
    if recipe.epochs > 0 and recipe.warmup_epochs > recipe.epochs:
        rule = f"the warm-up, {recipe.warmup_epochs:g} epochs, is longer than the training, {recipe.epochs}"
        yield Violation(field="warmup_epochs", rule=rule)
    elif recipe.epochs > 0 and recipe.warmup_epochs + recipe.cooldown_epochs > recipe.epochs:
        rule = f"warm-up and cool-down, {recipe.warmup_epochs:g} and {recipe.cooldown_epochs} epochs, are longer than the training, {recipe.epochs}"
        yield Violation(field="cooldown_epochs", rule=rule)
    for name in ("lr", "finetune_lr"):
        rate = getattr(recipe, name)
        if rate is not None and recipe.min_lr > rate:
            yield Violation(field="min_lr", rule=f"{recipe.min_lr:g} is above {name}, {rate:g}")
    if recipe.warmup_lr is not None and recipe.warmup_lr > recipe.lr:
        yield Violation(field="warmup_lr", rule=f"{recipe.warmup_lr:g} is above lr, {recipe.lr:g}")
    if recipe.mesa and recipe.ema is None:
        yield Violation(field="mesa", rule="it holds the network to its average: give ema, or leave mesa out")
    if recipe.nesterov and not recipe.momentum:
        yield Violation(field="nesterov", rule="it needs a momentum above 0")
    if conflict := lamb_conflict(recipe):
        yield Violation(field="zero_stage", rule=conflict)
    if conflict := batch_conflict(recipe.batch_size, recipe.micro_batch_size, ranks):
        yield Violation(field="batch_size", rule=conflict)
    for field, rule in augment_conflicts(recipe, ranks):
        yield Violation(field=field, rule=rule)


def untrained(model: ModelSpec, recipe: RecipeSpec) -> str | None:
    """Why a model would be measured with random weights, with the remedy; None if it is trained, or has weights."""
    if recipe.epochs + recipe.finetune_epochs > 0 or model.options.get("pretrained") is not None:
        return None
    return f"epochs and finetune_epochs are both 0, and {model.label} has no weights: give it `pretrained`, raise epochs, or exclude the two"


def untaught(model: ModelSpec, recipe: RecipeSpec) -> str | None:
    """Why a recipe's teacher would know nothing, or have nobody to teach; None if it has something to teach, or if there is no teacher."""
    if recipe.distill is None:
        return None
    if recipe.epochs + recipe.finetune_epochs == 0:
        return "epochs and finetune_epochs are both 0, so nothing can be taught: raise finetune_epochs, or leave distill out"
    if recipe.distill.file is None and recipe.epochs == 0 and model.options.get("pretrained") is None:
        return f"the dense {model.label} would teach with random weights: give it `pretrained`, or raise epochs"
    return None


def lamb_conflict(recipe: RecipeSpec) -> str | None:
    """Why a recipe's optimizer cannot work on its ZeRO stage, or None."""
    if recipe.optimizer != "lamb" or recipe.zero_stage == 0:
        return None
    cut = f"zero_stage {recipe.zero_stage} cuts layers across ranks"
    return f"lamb scales each layer's update by the whole layer's norm, and {cut}; only 0 is valid"


def batch_conflict(batch_size: int, micro_batch_size: int | None, ranks: int) -> str | None:
    """Why a global batch cannot be divided into micro-batches on all ranks, or None. Without a size of micro-batches any number of images is one."""
    divisor = max(1, ranks) * (micro_batch_size or 1)
    if batch_size % divisor == 0:
        return None
    micro = f" x micro_batch_size {micro_batch_size}" if micro_batch_size else ""
    return f"{batch_size} cannot be divided by {ranks} ranks{micro}; use a multiple of {divisor}"


def cluster_conflicts(cluster: ClusterSpec) -> Iterator[Violation]:
    """Fields of a cluster that are right alone and wrong together."""
    if cluster.kind == "debug" and cluster.ranks != 1:
        rule = f"debug runs in the launcher's own process, with one rank, not {cluster.ranks}; kind: local takes several"
        yield Violation(field="tasks_per_node", rule=rule)
    if 0 < cluster.gpus_per_node < cluster.tasks_per_node:
        rule = f"each of the {cluster.tasks_per_node} ranks of a node (tasks_per_node) has a GPU of its own, not {cluster.gpus_per_node} for all"
        yield Violation(field="gpus_per_node", rule=rule)
    if cluster.profile and not cluster.promised_gpus and cluster.kind != "debug":
        for axis in ("cuda_graphs", "tf32"):
            if True in getattr(cluster.profile, axis):
                yield Violation(field="profile", rule=f"{axis} is of GPUs, and these jobs ask for none: set gpus_per_node, or leave it out")
    if cluster.gpus_per_node > cluster.tasks_per_node:
        rule = f"each rank has one GPU, so of {cluster.gpus_per_node} some would idle: set tasks_per_node, {cluster.tasks_per_node}, to as many"
        yield Violation(field="gpus_per_node", rule=rule)
    if cluster.kind == "local" and cluster.nodes != 1:
        yield Violation(field="nodes", rule=f"local has one node, not {cluster.nodes}; kind: slurm takes several")
    for field, rule in container_conflicts(cluster):
        yield Violation(field=field, rule=rule)


def empty_validation(data: DataSpec) -> str | None:
    """Why no image of a source is held out for validation; None if some are, or if only the files know. A class keeps at least one image."""
    images = all_images(data)
    if images is None or (round(data.val_fraction * images) > 0 and (data.source != "synthetic" or data.samples > data.classes)):
        return None
    return f"of {images} training images, {data.val_fraction:g} holds out no image: give more images, or raise it"


def all_images(data: DataSpec) -> int | None:
    """Images of a source before the validation split; None if only the files know."""
    return data.samples if data.source == "synthetic" else SOURCES[data.source].images


def training_images(data: DataSpec) -> int | None:
    """Images that are left for training after the validation split; None if only the files know."""
    images = all_images(data)
    return None if images is None else images - round(data.val_fraction * images)


def oversized_batch(recipe: RecipeSpec, data: DataSpec, images: int | None) -> str | None:
    """Why a recipe makes no step on a data set with so many images for training; None if it makes some, or if their number is not known yet."""
    most = None if images is None else images_of_epoch(recipe, images)
    if most is None or recipe.batch_size <= most:
        return None
    apart = f"val_fraction {data.val_fraction:g} is held out"
    return f"{recipe.batch_size} is more than the {images} training images of {data.source} ({apart}); use at most {most}"


def unreachable_rewind(method: PruningMethod, budget: Budget, steps_per_epoch: int) -> str | None:
    """Which step a method rewinds to that its stage never makes; None if there is no such step, or if the method cannot use the budget at all."""
    try:
        stages = method.stages(budget)
    except ValueError:
        return None
    late = ((stage, step) for stage in stages for step in stage.keep_steps if step > stage.epochs * steps_per_epoch)
    stage, step = next(late, (None, None))
    return f"rewinds to step {step}, but {stage.name} ends at step {stage.epochs * steps_per_epoch}" if stage else None
