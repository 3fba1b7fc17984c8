"""The options of every family that a grid may set, with types, limits and defaults. No torch: grids are checked on the login node.

The defaults are those of the family; an entry of `models.registry.MODELS` changes them for its size. A nested dataclass is a variant, or None.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from models.typed import ABOVE_0, AT_LEAST_0, AT_LEAST_1, FRACTION, Limit, between

Count = Annotated[int, AT_LEAST_1]
Fraction = Annotated[float, FRACTION]
Positive = Annotated[float, ABOVE_0]
SCAN_PATH = re.compile(r"(h|v|w([2-9]|[1-9]\d+))(_flip)?", re.ASCII)
PATH_WORDS = "h, v, or w and the side of a window (w2, w7), each with or without _flip"
ScanPath = Annotated[str, Limit(words=PATH_WORDS, holds=lambda value: SCAN_PATH.fullmatch(value) is not None)]
Pairs = Annotated[int, Limit(words="even and 2 or more", holds=lambda value: value >= 2 and value % 2 == 0)]


CONTROL = "it is a control, built as timm builds it"
NO_SCAN = "it has no scan"
OF_TIMM: Mapping[str, str] = {  # variants that timm's networks do not take, and why
    "se": CONTROL,
    "mobilenet": CONTROL,
    "s4": NO_SCAN,
    "s5": NO_SCAN,
    "scan": NO_SCAN,
    "swa": CONTROL,
    "attention_pool": CONTROL,
    "convnext": CONTROL,
}


@dataclass(frozen=True, kw_only=True)
class SEConfig:
    """Squeeze-and-excitation on a block's branch (arXiv 1709.01507): fc C/ratio, ReLU, fc, sigmoid of the mean over tokens."""

    ratio: Count = 4


@dataclass(frozen=True, kw_only=True)
class MobilePathConfig:
    """Vim: a MobileNetV2 inverted residual (arXiv 1801.04381) over tokens instead of each direction's convolution."""

    expand: Count = 1  # inner channels / channels; the 1x1 layers are as wide as the scan, so even 1 doubles Vim-Ti's size
    kernel: Annotated[int, between(1, 16)] = 3  # taps of the depthwise convolution, causal in the direction of the scan


@dataclass(frozen=True, kw_only=True)
class MobileBlockConfig:
    """MobileNetV2 inverted residuals (arXiv 1801.04381). MambaVision: instead of the convolution blocks of stages 1 and 2. VMamba and VSSD: instead
    of the feed-forward layers.
    """

    expand: Count = 4
    kernel: Count = 3  # odd

    def __post_init__(self) -> None:
        _must_be_odd(kernel=self.kernel)


@dataclass(frozen=True, kw_only=True)
class SWAConfig:
    """Sliding-window attention: each token attends to a neighbourhood of `window` x `window` tokens."""

    window: Count = 7  # tokens, odd
    shift: Annotated[int, AT_LEAST_0] = 0  # tokens by which every second attention block shifts its neighbourhood; at most window // 2

    def __post_init__(self) -> None:
        _must_be_odd(window=self.window)
        if self.shift > self.window // 2:
            raise ValueError(f"shift must be at most window // 2 = {self.window // 2}, so that a token sees itself; not {self.shift}")


@dataclass(frozen=True, kw_only=True)
class S4Config:
    """S4D (arXiv 2206.11893) instead of the selective scan."""

    d_state: Pairs = 16  # of each channel, in conjugate pairs
    init: Literal["lin", "inv"] = "lin"
    dt_min: Positive = 1e-3
    dt_max: Positive = 1e-1


@dataclass(frozen=True, kw_only=True)
class S5Config:
    """S5 (arXiv 2208.04933) instead of the selective scan."""

    d_state: Pairs = 64  # shared by all channels, in conjugate pairs
    blocks: Count = 1  # of HiPPO-N on the diagonal of the initial state matrix
    dt_min: Positive = 1e-3
    dt_max: Positive = 1e-1

    def __post_init__(self) -> None:
        if self.d_state % (2 * self.blocks):
            raise ValueError(f"d_state must be a multiple of 2 * blocks = {2 * self.blocks}, not {self.d_state}")


@dataclass(frozen=True, kw_only=True)
class AttentionPoolConfig:
    """Attention pooling with learned queries before the head and, if `downsample`, in the down-samplings, over 2 x 2 tokens."""

    heads: Count = 4  # divides the channels of every stage where it pools
    downsample: bool = False


@dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig:
    """Principles of ConvNeXt (arXiv 2201.03545) for the convolutional part, each with a flag."""

    layer_norm: bool = True  # LayerNorm over channels instead of every BatchNorm
    kernel: Count = 3  # of the blocks' convolutions, odd; ConvNeXt's own is 7
    patch_downsample: bool = True  # 2x2 convolutions of stride 2, each after a norm of its own
    separable: bool = True  # a depthwise and a 1x1 convolution instead of each convolution of a block
    gelu: bool = True  # exact GELU instead of ReLU and tanh-GELU
    fewer_blocks: bool = True  # half as many convolution blocks, rounded up

    def __post_init__(self) -> None:
        _must_be_odd(kernel=self.kernel)


@dataclass(frozen=True, kw_only=True)
class VimConfig:
    """Vision Mamba (arXiv 2401.09417). Defaults are Vim-Ti's."""

    refused: ClassVar[Mapping[str, str]] = {  # variants of other families, and why they are none here
        "swa": "it has no attention",
        "attention_pool": "it classifies by the class token in the middle, as published",
        "convnext": "it has no convolutional stages",
    }
    patch_size: Count = 16  # pixels
    stride: Count | None = None  # pixels between patches; None: patch_size
    dim: Count = 192
    depth: Count = 24
    d_state: Annotated[int, between(1, 256)] = 16
    d_conv: Annotated[int, between(2, 4)] = 4  # taps of the causal convolution; the CUDA kernel has 2 to 4
    expand: Count = 2  # inner channels / dim
    dt_rank: Count | None = None  # None: dim / 16, rounded up
    drop_path: Fraction = 0.0  # of the last block; it rises linearly from 0
    scan: tuple[ScanPath, ...] = ("h", "h_flip")  # the paths of every block, `models.scan_paths`; each has parameters of its own
    se: SEConfig | None = None
    mobilenet: MobilePathConfig | None = None
    s4: S4Config | None = None  # one of s4 and s5
    s5: S5Config | None = None
    pretrained: str | None = None  # path of an official checkpoint
    pretrained_key: str | None = None  # the name of the weights in a checkpoint that holds several; None: the last, not the averaged

    def check(self) -> None:
        """Raises ValueError if options contradict each other."""
        _at_most_one(s4=self.s4, s5=self.s5)
        needs_pretrained(self.pretrained, self.pretrained_key)
        if not self.scan:
            raise ValueError("scan must name at least one path, such as [h, h_flip]")


Four = tuple[Count, Count, Count, Count]


@dataclass(frozen=True, kw_only=True)
class MambaVisionConfig:
    """MambaVision (arXiv 2407.08083). Defaults are MambaVision-T's."""

    refused: ClassVar[Mapping[str, str]] = {
        "scan": "it scans its windows row by row, as published, and mixes their tokens by attention; Vim takes paths"
    }
    dim: Count = 80  # of stage 1; it doubles at every stage
    in_dim: Count = 32  # between the stem's convolutions
    depths: Four = (1, 3, 8, 4)
    heads: Four = (2, 4, 8, 16)
    windows: Four = (8, 8, 14, 7)  # tokens a side; stages 1 and 2 have none
    stem_strides: tuple[Count, Count] = (2, 2)
    mlp_ratio: Positive = 4.0
    d_state: Annotated[int, between(1, 256)] = 8
    d_conv: Annotated[int, between(1, 16)] = 3
    drop_path: Fraction = 0.2  # of the last block; it rises linearly from 0
    layer_scale: Positive | None = None  # of the blocks of stages 3 and 4
    swa: SWAConfig | None = None
    s4: S4Config | None = None  # one of s4 and s5
    s5: S5Config | None = None
    attention_pool: AttentionPoolConfig | None = None
    convnext: ConvNeXtConfig | None = None
    se: SEConfig | None = None
    mobilenet: MobileBlockConfig | None = None
    pretrained: str | None = None  # path of an official checkpoint
    pretrained_key: str | None = None  # the name of the weights in a checkpoint that holds several; None: the last, not the averaged

    def check(self) -> None:
        """Raises ValueError if options contradict each other."""
        _at_most_one(s4=self.s4, s5=self.s5)
        needs_pretrained(self.pretrained, self.pretrained_key)
        if self.dim % 2:
            raise ValueError(f"dim must be even, for the two halves of a mixer; not {self.dim}")
        pool = self.attention_pool
        pooled = [(pool.heads, dim) for dim in (8 * self.dim, *([self.dim] if pool.downsample else []))] if pool else []
        divided = [(heads, self.dim * 2**stage) for stage, heads in enumerate(self.heads) if stage >= 2]
        _must_divide(divided + pooled)


@dataclass(frozen=True, kw_only=True)
class VMambaConfig:
    """VMamba (arXiv 2401.10166). Defaults are VMamba-T's with s1l8."""

    refused: ClassVar[Mapping[str, str]] = {  # variants of other families, and why they are none here
        "swa": "it has no attention",
        "attention_pool": "it classifies by the mean over the map, as published",
        "convnext": "it has the norms, activations and down-sampling of ConvNeXt already",
        "scan": "its four directions share their convolution, as published; Vim takes the same four as [h, v, h_flip, v_flip]",
    }
    dim: Pairs = 96  # of stage 1, doubled at every stage
    depths: Four = (2, 2, 8, 2)
    stem_strides: tuple[Count, Count] = (2, 2)
    expand: Count = 1  # inner channels / channels
    d_state: Annotated[int, between(1, 256)] = 1
    dt_rank: Count | None = None  # None: a stage's channels / 16, rounded up
    mlp_ratio: Positive = 4.0
    drop_path: Fraction = 0.2  # of the last block; it rises linearly from 0
    se: SEConfig | None = None
    mobilenet: MobileBlockConfig | None = None  # for the feed-forward layers
    s4: S4Config | None = None  # one of s4 and s5
    s5: S5Config | None = None
    pretrained: str | None = None  # path of an official checkpoint
    pretrained_key: str | None = None  # the name of the weights in a checkpoint that holds several; None: the last, not the averaged

    def check(self) -> None:
        """Raises ValueError if options contradict each other."""
        _at_most_one(s4=self.s4, s5=self.s5)
        needs_pretrained(self.pretrained, self.pretrained_key)


@dataclass(frozen=True, kw_only=True)
class VSSDConfig:
    """VSSD (arXiv 2407.18559). Defaults are VSSD-Micro's."""

    refused: ClassVar[Mapping[str, str]] = {  # variants of other families, and why they are none here
        "s4": "it has no scan to replace: every token sees all others through one matrix",
        "s5": "it has no scan to replace: every token sees all others through one matrix",
        "swa": "its attention is that of stage 4, which sees the whole map, as published",
        "attention_pool": "it classifies by the mean over the map, as published",
        "convnext": "its blocks have no convolutions but depthwise ones",
        "scan": "it has no scan, so no path: every token sees all others through one matrix",
    }
    dim: Pairs = 48  # of stage 1, doubled at every stage
    depths: Four = (2, 2, 8, 4)
    heads: Four = (2, 4, 8, 16)  # of the state space in stages 1 to 3, of the attention in stage 4
    stem_strides: tuple[Count, Count] = (2, 2)
    expand: Count = 2  # inner channels / channels
    d_state: Annotated[int, between(1, 256)] = 48
    mlp_ratio: Positive = 4.0
    drop_path: Fraction = 0.1  # of the last block; it rises linearly from 0
    se: SEConfig | None = None
    mobilenet: MobileBlockConfig | None = None  # for the feed-forward layers
    pretrained: str | None = None  # path of an official checkpoint
    pretrained_key: str | None = None  # the name of the weights in a checkpoint that holds several; None: the last, not the averaged

    def check(self) -> None:
        """Raises ValueError if options contradict each other."""
        needs_pretrained(self.pretrained, self.pretrained_key)
        _must_divide([(heads, self.dim * 2**stage * (self.expand if stage < 3 else 1)) for stage, heads in enumerate(self.heads)])


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """timm's plain vision transformer, a control without a state space. Defaults are ViT-Ti's."""

    refused: ClassVar[Mapping[str, str]] = OF_TIMM
    patch_size: Count = 16  # pixels
    dim: Count = 192
    depth: Count = 12
    heads: Count = 3
    drop_path: Fraction = 0.0
    pretrained: str | None = None  # path of a checkpoint of timm's
    pretrained_key: str | None = None  # the name of the weights in a checkpoint that holds several; None: the last, not the averaged

    def check(self) -> None:
        """Raises ValueError if options contradict each other."""
        needs_pretrained(self.pretrained, self.pretrained_key)
        _must_divide([(self.heads, self.dim)])


@dataclass(frozen=True, kw_only=True)
class MambaOutConfig:
    """timm's MambaOut (arXiv 2405.07992): Mamba's gated blocks without the state space. Defaults are MambaOut-Femto's."""

    refused: ClassVar[Mapping[str, str]] = OF_TIMM
    depths: Four = (3, 3, 9, 3)
    dims: Four = (48, 96, 192, 288)
    drop_path: Fraction = 0.0
    pretrained: str | None = None  # path of a checkpoint of timm's
    pretrained_key: str | None = None  # the name of the weights in a checkpoint that holds several; None: the last, not the averaged

    def check(self) -> None:
        """Raises ValueError if options contradict each other."""
        needs_pretrained(self.pretrained, self.pretrained_key)


def _at_most_one(**variants: object) -> None:
    given = [name for name, variant in variants.items() if variant is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} both replace the selective scan: give only one")


def needs_pretrained(pretrained: str | None, key: str | None) -> None:
    """Raises ValueError if weights are named and no file."""
    if key is not None and pretrained is None:
        raise ValueError(f"pretrained_key {key!r} names weights in a checkpoint: give its path as pretrained, or leave the key out")


def _must_be_odd(**sizes: int) -> None:
    for name, size in sizes.items():
        if size % 2 == 0:
            raise ValueError(f"{name} must be odd, so that it has a middle; not {size}")


def _must_divide(pairs: list[tuple[int, int]]) -> None:
    for heads, dim in pairs:
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
