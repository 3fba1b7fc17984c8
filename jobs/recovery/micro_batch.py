"""How many images a stage puts through one forward pass of a rank, where what its recipe asks for did not fit into memory.

The number lies beside the stage (`micro_batch.json`) and not in its settings: the global batch stays, micro-batches are accumulated, no id changes.
"""

import json
from dataclasses import replace
from pathlib import Path

from jobs.experiment.files import write_json
from jobs.experiment.run_folder import MICRO_BATCH
from jobs.experiment.specs import RecipeSpec, StageSpec


def asked(recipe: RecipeSpec, world: int) -> int:
    """Images of one forward pass of a rank as the recipe has it."""
    return recipe.micro_batch_size or max(1, recipe.batch_size // world)


def halved(recipe: RecipeSpec, world: int, micro: int) -> int | None:
    """The largest number of images up to half of `micro` that shares a rank's part of the batch evenly; None below one image."""
    share = recipe.batch_size // world
    return next((size for size in range(micro // 2, 0, -1) if share % size == 0), None)


def smaller(folder: Path) -> int | None:
    """What an earlier attempt at the stage in `folder` left; None where the recipe's number has always fitted."""
    try:
        return int(json.loads((folder / MICRO_BATCH).read_text())["micro_batch_size"])
    except FileNotFoundError:
        return None


def because(folder: Path) -> str:
    """Why the last attempt at the stage in `folder` was made smaller; empty where none was."""
    try:
        return str(json.loads((folder / MICRO_BATCH).read_text())["because"])
    except FileNotFoundError:
        return ""


def fitting(spec: StageSpec, folder: Path, world: int) -> StageSpec:
    """The stage as it is to be run: the same, id included, but for the images of one forward pass."""
    small, share = smaller(folder), spec.recipe.batch_size // world
    if small is None or small >= asked(spec.recipe, world):
        return spec
    micro = next(size for size in range(small, 0, -1) if share % size == 0)
    return replace(spec, recipe=replace(spec.recipe, micro_batch_size=micro))


def shrink(spec: StageSpec, folder: Path, world: int, reason: str) -> int | None:
    """Images of a forward pass from now on, half of those that `spec` (as it was run) had; None when it had one alone.

    Written down for the next attempt. Ranks that run out of memory together all write the same.
    """
    half = halved(spec.recipe, world, asked(spec.recipe, world))
    if half is not None:
        keep(folder, half, reason)
    return half


def keep(folder: Path, micro: int, reason: str) -> None:
    """Writes the size down for the next attempt at the stage in `folder`."""
    write_json(folder / MICRO_BATCH, {"micro_batch_size": micro, "because": reason})


def note(stage: str, micro: int, recipe: RecipeSpec) -> str:
    """What a record says about it."""
    what = f"stage {stage} ran out of memory and went on with micro-batches of {micro} images"
    return f"{what}; the global batch of {recipe.batch_size} is kept by accumulating them"
