"""Official checkpoints: the evaluation that their authors use, and which cells may be compared with the published figures.

The evaluation is resolved when a grid is read, so a cell's data, its id and its record hold the values.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.experiment.cell import Cell
from jobs.experiment.specs import DataSpec, ModelSpec
from models.published import CLASSES, IMAGES, PUBLISHED, Published

EVALUATION = ("eval_crop", "interpolation")  # the fields of data on which the figures depend


def official(model: ModelSpec) -> Published | None:
    """What was published of the model's checkpoint; None for a model without a file, or without published figures."""
    return PUBLISHED.get(model.name) if model.options.get("pretrained") is not None else None


def evaluated_as_published(model: ModelSpec, data: DataSpec, given: Collection[str]) -> DataSpec:
    """`data` with the evaluation of the model's official checkpoint, but for the fields `given`, which the user has set. Others: `data` itself."""
    published = official(model)
    if published is None:
        return data
    changes = {name: getattr(published, name) for name in EVALUATION if name not in given and getattr(data, name) != getattr(published, name)}
    return replace(data, **changes) if changes else data


def follows_published(name: str, options: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """True if a model and data in JSON form are those of an official checkpoint under the evaluation of its authors."""
    published = PUBLISHED.get(name) if options.get("pretrained") is not None else None
    return published is not None and all(data.get(field) == getattr(published, field) for field in EVALUATION)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The published figures to hold a cell against; None if it is no untouched official checkpoint. `note`: what the reader should know."""

    published: Published | None = None
    note: str | None = None


def comparison(cell: Cell, *, classes: int, img_size: int, images: int, changes: Sequence[str] = ()) -> Comparison:
    """What a cell is compared with. Its data have so many classes and test images, and its network sees images of `img_size` pixels.

    `changes`: what of the file was not loaded as it stands there.
    """
    published, recipe = official(cell.model), cell.recipe
    if published is None or cell.method.name != "dense" or recipe.epochs + recipe.finetune_epochs > 0:
        return Comparison()
    if why := _difference(cell, published, classes, img_size) or "; ".join(changes):
        return Comparison(note=f"not compared with the published top-1 of {published.top1:g}%: {why}")
    return Comparison(published=published, note=None if images == IMAGES else f"published on {IMAGES} images, measured here on {images}")


def _difference(cell: Cell, published: Published, classes: int, img_size: int) -> str | None:
    """How an official checkpoint that nobody trained is evaluated otherwise than its authors do; None if it is not."""
    if changed := [name for name in cell.model.architecture if name != "drop_path"]:  # which acts in training alone
        return f"the model has other options ({', '.join(changed)})"
    if classes != CLASSES or cell.data.source == "synthetic":
        return f"{cell.data.source} with {classes} classes is not ImageNet-1k, which has {CLASSES}"
    if img_size != published.img_size:
        return f"img_size is {img_size}, and was {published.img_size}"
    other = [name for name in EVALUATION if getattr(cell.data, name) != getattr(published, name)]
    return "; ".join(f"{name} is {getattr(cell.data, name)}, and was {getattr(published, name)}" for name in other) or None
