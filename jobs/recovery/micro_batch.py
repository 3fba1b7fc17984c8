"""Micro-batches of stages that ran out of memory with the recipe's.

The number of images is stored beside the stage (`micro_batch.json`) and not in its settings: micro-batches are accumulated, so the global batch stays
and no id changes.
"""

from dataclasses import replace
from pathlib import Path

from jobs.experiment.augment_limits import mixes
from jobs.experiment.files import parsed, write_json
from jobs.experiment.run_folder import MICRO_BATCH
from jobs.experiment.specs import RecipeSpec, StageSpec


def recipe_micro_batch(recipe: RecipeSpec, world: int) -> int:
    """Images of one forward pass of a rank, as the recipe asks for them. `world`: the number of ranks."""
    return recipe.micro_batch_size or max(1, recipe.batch_size // world)


def half_micro_batch(recipe: RecipeSpec, world: int, micro: int) -> int | None:
    """The largest micro-batch of at most half of `micro` images that divides a rank's part of the batch; None below the smallest.

    That is one image, or two where the recipe mixes neighbours.
    """
    return _largest_divisor(recipe.batch_size // world, micro // 2, even=mixes(recipe))


def stored_micro_batch(folder: Path) -> int | None:
    """The micro-batch that an attempt at the stage in `folder` has stored; None where no attempt ran out of memory, or the file cannot be read."""
    try:
        return int(parsed((folder / MICRO_BATCH).read_bytes())["micro_batch_size"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def stored_reason(folder: Path) -> str:
    """Why the last micro-batch was stored for the stage in `folder`; empty where there is none."""
    try:
        return str(parsed((folder / MICRO_BATCH).read_bytes())["because"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ""


def with_stored_micro_batch(spec: StageSpec, folder: Path, world: int) -> StageSpec:
    """The stage with the micro-batch stored in its `folder`. Its id and global batch stay; the stage itself where nothing smaller is stored."""
    stored = stored_micro_batch(folder)
    if stored is None or stored >= recipe_micro_batch(spec.recipe, world):
        return spec
    part = spec.recipe.batch_size // world  # of another number of ranks, another part
    micro = _largest_divisor(part, stored, even=mixes(spec.recipe))
    return replace(spec, recipe=replace(spec.recipe, micro_batch_size=micro))


def halve_micro_batch(spec: StageSpec, folder: Path, world: int, reason: str) -> int | None:
    """The micro-batch for the next attempt, half of the one in `spec` and stored in `folder`; None where that was one image.

    `spec`: the stage as it was run. Ranks that run out of memory together all store the same number.
    """
    micro = half_micro_batch(spec.recipe, world, recipe_micro_batch(spec.recipe, world))
    if micro is not None:
        store_micro_batch(folder, micro, reason)
    return micro


def store_micro_batch(folder: Path, micro: int, reason: str) -> None:
    """Writes the micro-batch for the next attempt at the stage in `folder`."""
    write_json(folder / MICRO_BATCH, {"micro_batch_size": micro, "because": reason})


def micro_batch_note(stage: str, micro: int, recipe: RecipeSpec) -> str:
    """The note in the record of a cell that passes through `stage`."""
    change = f"stage {stage} ran out of memory and went on with micro-batches of {micro} images"
    return f"{change}; the global batch of {recipe.batch_size} is kept by accumulating them"


def _largest_divisor(count: int, limit: int, *, even: bool) -> int | None:
    """The largest divisor of `count` up to `limit`, of the even ones if `even`; None where there is none."""
    return next((size for size in range(limit, 0, -1) if count % size == 0 and not (even and size % 2)), None)
