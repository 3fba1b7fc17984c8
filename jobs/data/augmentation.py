"""What a recipe does to the images and targets of an epoch, besides boxes and flips: operations in the feeds, erasing and mixing on the device.

drawn_as    the number that a sample has in draws: its position in the file, and which repeat of it this is (`jobs.data.augment.repeated`)
positions   of the samples within the epoch's order, over all ranks
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.data.augment import Ints
from jobs.data.decoding import SELECTION, Channels, Interpolation, fill
from jobs.data.erasing import draw_rectangles, erase, noise_seeds
from jobs.data.mixing import draw_mixes, mix_images, soft_targets
from jobs.data.operations import OPERATION, draw_operations
from jobs.experiment.augment_limits import mixes
from jobs.experiment.specs import RecipeSpec

if TYPE_CHECKING:
    from torch import Tensor

Batches = Generator[tuple["Tensor", "Tensor"]]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A recipe's augmentation of one data set."""

    recipe: RecipeSpec
    img_size: int
    classes: int
    interpolation: str  # of operations that move pixels; area: bilinear or bicubic at random, as timm without a name
    channels: Channels
    seed: int

    def with_operations(self, selection: NDArray[np.void], drawn_as: Ints, epoch: int) -> NDArray[np.void]:
        """The selection with the operations of each row beside it, for `filled`; itself where the recipe has none."""
        table = draw_operations(self.recipe, drawn_as, img_size=self.img_size, interpolation=self.interpolation, seed=self.seed, epoch=epoch)
        if table is None:
            return selection
        rows = np.empty(len(selection), [("image", SELECTION), ("operations", OPERATION, table.shape[1:]), ("grey", "u1", (3,))])
        rows["image"], rows["operations"] = selection, table
        rows["grey"] = [min(255, round(255 * mean)) for mean in self.channels[0]]
        return rows

    def changed(self, batches: Batches, drawn_as: Ints, positions: Ints, epoch: int) -> Batches:
        """The batches with images erased and mixed, in place, and soft targets (b, classes) float32 where the recipe mixes."""
        if not self.recipe.random_erase and not mixes(self.recipe):
            return batches
        return self._changed(batches, drawn_as, positions, epoch)

    def _changed(self, batches: Batches, drawn_as: Ints, positions: Ints, epoch: int) -> Batches:
        import torch

        draws: Any = {"img_size": self.img_size, "seed": self.seed, "epoch": epoch}
        rectangles = draw_rectangles(self.recipe, drawn_as, **draws)
        seeds = noise_seeds(drawn_as, seed=self.seed, epoch=epoch)
        pairs = self._pairs(positions[::2], draws) if mixes(self.recipe) else None
        first, generator = 0, None
        with closing(batches):
            for images, labels in batches:
                generator = generator or torch.Generator(images.device)
                rows = slice(first, first + len(images))
                erase(images, rectangles[rows], seeds[rows], self.recipe.random_erase_mode, generator)
                if pairs is not None:
                    mixed = pairs[first // 2 : (first + len(images)) // 2]
                    mix_images(images, mixed)
                    labels = soft_targets(labels, mixed, self.classes, self.recipe.label_smoothing)
                first += len(images)
                yield images, labels

    def _pairs(self, positions: Ints, draws: Any) -> NDArray[np.void]:
        """How each pair is mixed, MIX (n,). `positions`: of its first image. A weight is drawn once for all pairs that share it."""
        sharing = self.recipe.batch_size if self.recipe.mixup_mode == "batch" else 2
        numbers, members = np.unique(positions // sharing, return_inverse=True)
        return draw_mixes(self.recipe, numbers, **draws)[members]


def fill_augmented(
    content: NDArray[np.uint8],
    rows: NDArray[np.void],
    out: NDArray[np.uint8],
    interpolation: Interpolation,
    threads: int,
    scaled: bool = False,
    starts: NDArray[np.uint8] | None = None,
) -> None:
    """`jobs.data.decoding.fill`, then the operations of rows that have some. `rows`: SELECTION (b,), or from `Augmentation.with_operations`."""
    if rows.dtype == SELECTION:
        return fill(content, rows, out, interpolation, threads, scaled, starts)
    fill(content, rows["image"], out, interpolation, threads, scaled, starts)
    from jobs.data.pixels import change

    change(out, rows["operations"], rows["grey"][0], threads)
