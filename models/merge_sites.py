"""Where the tokens of a network can merge, and the network in which they do."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from models.attention import SlidingWindowAttention
from models.mambavision import MambaVision
from models.token_merging import Merging, Tokens
from models.vim import Vim

WITHOUT: dict[str, str] = {  # families whose tokens cannot merge, and why
    "VMamba": "every block has a 3x3 convolution and scans over rows and columns, and merged tokens form no map",
    "VSSD": "every block has 3x3 convolutions over the map, and merged tokens form no map",
    "MambaOut": "its blocks are convolutions over the map, and merged tokens form no map",
}


@dataclass(frozen=True, kw_only=True)
class Span:
    """Blocks one after the other that work on the same tokens."""

    first: int  # the number of its first block; blocks with tokens are numbered from 0
    blocks: int
    tokens: int  # of an image, or of a window, without class tokens


def spans(network: nn.Module) -> tuple[Span, ...]:
    """The blocks of a network before which tokens can leave. ValueError, with the reason, if there are none."""
    if isinstance(network, Vim):
        if any(set(mixer.paths) != {"h"} for mixer in mixers(network) if mixer is not None):
            raise ValueError("tokens of a Vim with other scans than h and h_flip cannot merge: they need the map, and merged tokens form none")
        return (Span(first=0, blocks=len(network.layers), tokens=network.patch_embed.tokens),)
    if isinstance(network, MambaVision):
        return tuple(spans_of_windows(network))
    if type(network).__module__ == "timm.models.vision_transformer" and type(network).__name__ == "VisionTransformer":
        return (span_of_vit(network),)
    family = type(network).__name__
    raise ValueError(f"tokens of {family} cannot merge: {WITHOUT.get(family, 'that is defined for Vim, MambaVision and the plain ViT')}")


def spans_of_windows(network: MambaVision) -> Iterator[Span]:
    """The levels of MambaVision with windows. ValueError if their attention needs the map."""
    first = 0
    for level in windowed_levels(network):
        if any(isinstance(block.mixer, SlidingWindowAttention) for block in level.blocks):
            raise ValueError("tokens of MambaVision with swa cannot merge: sliding windows are neighbourhoods in the map")
        yield Span(first=first, blocks=len(level.blocks), tokens=level.window**2)
        first += len(level.blocks)


def windowed_levels(network: MambaVision) -> list[Any]:
    """Its levels with windows."""
    levels: Iterable[Any] = network.levels
    return [level for level in levels if level.window is not None]


def span_of_vit(network: Any) -> Span:
    """The blocks of timm's VisionTransformer. ValueError if it classifies by the mean of its tokens."""
    if network.global_pool != "token" or network.attn_pool is not None:
        raise ValueError("tokens of a ViT can merge if it classifies by its class token; this network pools over its tokens")
    return Span(first=0, blocks=len(network.blocks), tokens=network.patch_embed.num_patches)


def mixers(network: Vim) -> list[Any]:
    """The mixers of its blocks; None for a block that was removed."""
    blocks: Iterable[Any] = network.layers
    return [block.mixer for block in blocks]


def check_timescale(network: nn.Module, blocks: Sequence[int]) -> None:
    """Raises ValueError unless a Delta that depends on the tokens is computed in the block before each of `blocks`."""
    if not isinstance(network, Vim):
        raise ValueError("score: timescale needs Delta in every block, which only Vim has; use score: cosine")
    if any(len(mixer.directions) < 2 for mixer in mixers(network)):
        raise ValueError("score: timescale reads Delta of the direction h in Vim's own scan, [h, h_flip]; use score: cosine")
    if any(mixer.fixed for mixer in mixers(network)):
        raise ValueError("score: timescale needs a Delta that depends on the tokens; the state space of s4 and s5 does not; use score: cosine")
    if 0 in blocks:
        raise ValueError("score: timescale reads Delta of the block before, and block 0 has none; leave 0 out of layers")


def merge_tokens(network: nn.Module, merging: Merging) -> None:
    """Lets the tokens of `network` merge in every forward pass from now on. Weights and their names stay.

    ValueError if they cannot, or if the network has other numbers of tokens.
    """
    ranges = spans(network)
    for block, (_, before) in merging.tokens.items():
        span = next((span for span in ranges if span.first <= block < span.first + span.blocks), None)
        if span is None:
            raise ValueError(f"the network has no block {block} with tokens; it has {ranges[-1].first + ranges[-1].blocks}")
        left = span.tokens - sum(before - after for other, (after, before) in merging.tokens.items() if span.first <= other < block)
        if before != left:
            raise ValueError(f"{before} tokens were to be before block {block}, but the network has {left} there")
    if merging.score == "timescale":
        check_timescale(network, tuple(merging.tokens))
    set_merging(network, merging, ranges)


def set_merging(network: Any, merging: Merging, ranges: Sequence[Span]) -> None:
    """Puts a merging that was checked into the network."""
    if isinstance(network, Vim):
        layers: Any = network.layers
        network.merging = merging
        for block in merging.tokens if merging.score == "timescale" else ():
            layers[block - 1].mixer.dt_proj.keeps_timescale = True
    elif isinstance(network, MambaVision):
        for level, span in zip(windowed_levels(network), ranges, strict=True):
            level.merging, level.first_block = merging, span.first
    else:
        network.blocks = MergedBlocks(network.blocks, merging, network.num_prefix_tokens)


def merging_of(network: nn.Module) -> Merging | None:
    """The merging of a network's tokens; None if they stay apart."""
    mergings: Iterable[Merging | None] = (getattr(part, "merging", None) for part in network.modules())
    return next((merging for merging in mergings if merging is not None), None)


class MergedBlocks(nn.Sequential):
    """The blocks of timm's ViT, with merging before some of them and proportional attention. Under the names that they had."""

    def __init__(self, blocks: Iterable[nn.Module], merging: Merging, apart: int) -> None:
        """apart: class tokens and registers at the beginning of the sequence."""
        super().__init__(*blocks)
        self.merging: Merging | None = merging
        self.prefix = apart

    def forward(self, x: Tensor) -> Tensor:
        """(B, L - all that leave, D) from (B, L, D)."""
        tokens = None if self.merging is None else Tokens(self.merging, x, range(self.prefix))
        for number, block in enumerate(self):
            if tokens is None:
                x = block(x)
            else:
                (x,) = tokens.before(number, x)
                x = block(x, attn_mask=tokens.bias(x.dtype))
        return x
