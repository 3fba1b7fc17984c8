"""Position embeddings of another image size, resampled as timm does when it loads a checkpoint."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.vim import Vim


def class_position(model: nn.Module, patches: int) -> int:
    """Where the class token stands among the tokens of `patches` patches: in the middle in Vim, in front in ViT."""
    return patches // 2 if isinstance(model, Vim) else 0


def side_of(positions: Tensor) -> int | None:
    """Patches along a side, of positions (1, side^2 + 1, dim); None if the patches are no square."""
    patches = math.prod(positions.shape[1:-1]) - 1
    side = math.isqrt(max(patches, 0))
    return side if side > 0 and side**2 == patches else None


@torch.no_grad()
def resampled(positions: Tensor, side: int, model: nn.Module) -> Tensor:
    """Positions (1, side^2 + 1, dim) from (1, old side^2 + 1, dim), in their dtype; the class token's own is kept, wherever it stands.

    Bicubic with antialiasing, in fp32: `timm.layers.resample_abs_pos_embed` on the patches alone. ValueError if the old patches are no square.
    """
    old = side_of(positions)
    if old is None:
        raise ValueError(f"{positions.shape[1] - 1} patches are no square")
    at, new_at = class_position(model, old**2), class_position(model, side**2)
    token = positions[:, at : at + 1]
    patches = torch.cat((positions[:, :at], positions[:, at + 1 :]), dim=1)
    image = patches.float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    image = functional.interpolate(image, size=(side, side), mode="bicubic", antialias=True)
    patches = image.permute(0, 2, 3, 1).reshape(1, side**2, -1).to(positions.dtype)
    return torch.cat((patches[:, :new_at], token, patches[:, new_at:]), dim=1)
