"""The options of every family: what a grid entry may set, with types, limits and defaults. No torch: grids are checked on the login node.

A default here is the family's; a row of `models.registry.MODELS` sets what its size needs. A nested dataclass is a variant: None leaves it out.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
STRICT: dict[str, Any] = {"extra": "forbid"}  # pydantic's: an unknown option is an error


@dataclass(frozen=True, kw_only=True)
class SEConfig:
    """Squeeze-and-excitation on a block's branch (arXiv 1709.01507): fc C/ratio, ReLU, fc, sigmoid on the mean over tokens."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    ratio: Count = 4


@dataclass(frozen=True, kw_only=True)
class VimConfig:
    """Vision Mamba (arXiv 2401.09417). Defaults are Vim-Ti's."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    patch_size: Count = 16  # pixels
    stride: Count | None = None  # pixels between patches; None: patch_size
    dim: Count = 192
    depth: Count = 24
    d_state: Annotated[int, Field(ge=1, le=256)] = 16
    d_conv: Annotated[int, Field(ge=2, le=4)] = 4  # taps of the causal convolution; the CUDA kernel has 2 to 4
    expand: Count = 2  # inner channels / dim
    dt_rank: Count | None = None  # None: dim / 16, rounded up
    drop_path: Share = 0.0  # of the last block; it rises linearly from 0
    se: SEConfig | None = None
