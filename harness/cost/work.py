"""What decides how long the work of a stage takes: the model, its data, its recipe, and the kind of the stage."""

import dataclasses
from typing import NamedTuple, NewType

from jobs.experiment.cell import Cell
from jobs.experiment.identity import canonical, data_identity, digest, model_identity, recipe_identity, stage_id, stage_recipe, stage_recipe_identity
from jobs.experiment.specs import ClusterSpec, DataSpec, ModelSpec, RecipeSpec, StageSpec
from models.pruning.base import Budget
from models.pruning.dense import Dense
from models.pruning.knobs import trunk

WorkKey = NewType("WorkKey", str)
# Fields of a recipe that decide what a network learns and not how long a step takes; and a teacher, which is a matter of the kind of a stage. A field
# that is not named here makes another work of it.
NO_MATTER = frozenset(
    {
        "epochs", "finetune_epochs", "lr", "finetune_lr", "min_lr", "lr_every", "warmup_epochs", "warmup_lr", "warmup_prefix", "cooldown_epochs",
        "weight_decay", "decay_ssm", "layer_decay", "betas", "opt_eps", "momentum", "nesterov", "bce_threshold", "bce_sum", "label_smoothing",
        "clip_grad", "ema_warmup", "mesa_start", "mixup_off_epoch", "distill",
    }
)  # fmt: skip


class Shape(NamedTuple):
    """What of a cluster decides how long a step takes, but for the devices themselves."""

    ranks: int
    threads: int
    gpus: bool


def shape_of(cluster: ClusterSpec) -> Shape:
    """That of a profile's jobs."""
    return Shape(cluster.ranks, cluster.cpus_per_task, cluster.promised_gpus)


def work_key(model: ModelSpec, data: DataSpec, recipe: RecipeSpec, shape: Shape) -> WorkKey:
    """The same text for all whose steps take equally long on one kind of machine, but for their pruning."""
    network = model_identity(dataclasses.replace(model, options=model.architecture, pretrained_sha256=None))
    settings = {name: value for name, value in recipe_identity(recipe).items() if name not in NO_MATTER}
    return WorkKey(digest(canonical([network, data_identity(data), settings, shape])))


def key_of(part: Cell | StageSpec, shape: Shape) -> WorkKey:
    """That of a cell or a stage."""
    return work_key(part.model, part.data, part.recipe, shape)


class Keys:
    """Keys of many cells and stages. They share the objects of their settings, so the key of each combination of objects is made once.

    An object is known by its `id()`, and held, so that no other object can get the same `id()`.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[int, int, int, Shape], tuple[object, WorkKey]] = {}

    def of(self, part: Cell | StageSpec, shape: Shape) -> WorkKey:
        """The key of a cell or a stage."""
        settings = (part.model, part.data, part.recipe)
        name = (id(part.model), id(part.data), id(part.recipe), shape)
        if name not in self.known:
            self.known[name] = (settings, key_of(part, shape))
        return self.known[name][1]


def kind_of(spec: StageSpec) -> str:
    """What a stage does, in the words of its method: 'train', 'prune wanda', 'finetune magnitude taught'."""
    stage = spec.stage
    words = [stage.name] if stage.method is None else [stage.name, stage.method.name]
    return " ".join(words if spec.recipe.distill is None else [*words, "taught"])


def steps_of(spec: StageSpec, steps_per_epoch: int) -> int:
    """The optimizer steps that a stage makes."""
    first = spec.stage.rewind_step or 0 if spec.stage.start == "rewind" else 0
    return max(0, spec.stage.epochs * steps_per_epoch - first)


def batches_without_step(spec: StageSpec) -> int:
    """The global batches that a method looks at in a stage that makes no step."""
    return spec.stage.method.calibration_batches if spec.stage.method is not None and not spec.stage.epochs else 0


def dense_training(cell: Cell) -> tuple[Cell, StageSpec]:
    """The dense cell of a cell's model, without given weights, and its training: what is timed."""
    model = dataclasses.replace(cell.model, options=cell.model.architecture, pretrained_sha256=None)
    stage = trunk(Budget(epochs=max(1, cell.recipe.epochs), finetune_epochs=0))
    texts = (canonical(model_identity(model)), canonical(data_identity(cell.data)), canonical(stage_recipe_identity(cell.recipe, stage)))
    named = stage_id(*texts, cell.seed, canonical("timed"), None, None)
    spec = StageSpec(id=named, model=model, data=cell.data, recipe=stage_recipe(cell.recipe, stage), seed=cell.seed, stage=stage)
    return dataclasses.replace(cell, model=model, method=Dense()), spec
