"""Token merging: before chosen blocks some tokens are averaged into their most similar others, so that all later blocks have fewer to work on.

From the formulas of ToMe (Bolya et al., arXiv 2210.09461, section 3: bipartite soft matching, sizes, proportional attention) and of R-MeeTo (Shi et
al., arXiv 2412.12496: in Vim before a block, the original sequence restored, the class token kept apart, branch and residual merged alike).

| paper | here |
|---|---|
| sets A and B | the patch tokens by turns: the first, third ... and the second, fourth ... |
| similarity | cosine of the tokens' features, in at least fp32 |
| the r edges of ToMe | `Matching`: sources that leave, and the tokens that take them in |
| size s | `Tokens.sizes`: how many patches a token stands for |
| proportional attention (ToMe, eq. 1) | `Tokens.bias`: log s, added to the scores of keys |

Every sample is matched by itself. How many tokens leave is fixed, so that all shapes are. Of equal similarities the first in the sequence wins. The
means have a fixed sequence of terms on every device. A token that takes nothing in keeps its value to the bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Score = Literal["cosine", "timescale"]
Mode = Literal["merge", "prune"]


@dataclass(frozen=True, kw_only=True)
class Merging:
    """Before which blocks how many tokens leave, and how."""

    tokens: Mapping[int, tuple[int, int]]  # by block, counted from 0: tokens after and before, without class tokens
    score: Score = "cosine"  # timescale: the tokens of the smallest Delta leave, rather than those of the most similar pairs
    mode: Mode = "merge"  # prune: tokens that leave are dropped


@dataclass(frozen=True, kw_only=True)
class Matching:
    """What happens to the L tokens of each sample when r of them leave. All are int64 positions."""

    kept: Tensor  # (B, L - r) tokens that stay, ascending
    source: Tensor  # (B, r) tokens that leave
    slot: Tensor  # (B, r) the position in `kept` of the token that takes each of them in
    now_at: Tensor  # (B, L) the position in `kept` of every token, or of the token that takes it in


def match(features: Tensor, leaving: int, apart: Tensor, timescale: Tensor | None = None) -> Matching:
    """The matching of tokens with features (B, L, D) of which `leaving` leave; those at `apart`, (B, k), never.

    Without `timescale` the patch tokens are divided by turns, and the pairs of the highest cosines lose their first. With it, (B, L), the tokens of
    the lowest values leave, each to the most similar of those that stay.
    """
    with torch.no_grad():
        patches = apart_from(apart, features.shape[1])
        if timescale is None:
            source, target = closest_pairs(features, patches[:, ::2], patches[:, 1::2], leaving)
        else:
            ranked = patches.gather(1, timescale.gather(1, patches).argsort(dim=1, stable=True))
            source, target = closest_pairs(features, ranked[:, :leaving].sort(dim=1).values, ranked[:, leaving:].sort(dim=1).values, leaving)
        stays = torch.ones(features.shape[:2], dtype=torch.int64, device=features.device).scatter(1, source, 0)
        rank = stays.cumsum(1) - 1
        slot = rank.gather(1, target)
        kept = apart_from(source.sort(dim=1).values, features.shape[1])
        return Matching(kept=kept, source=source, slot=slot, now_at=rank.scatter(1, source, slot))


def apart_from(positions: Tensor, length: int) -> Tensor:
    """The other positions of a sequence, ascending: (B, length - k) from (B, k) ascending ones."""
    count = positions.shape[1]
    others = torch.arange(length - count, device=positions.device).unsqueeze(0)
    before = positions - torch.arange(count, device=positions.device)  # how many of the others lie before each
    return others + (others.unsqueeze(2) >= before.unsqueeze(1)).sum(2)


def closest_pairs(features: Tensor, first: Tensor, second: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(source, target), (B, count): the tokens of `first` that are most similar to any of `second`, and that one. ToMe, section 3."""
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    lengths = torch.linalg.vector_norm(wide, dim=2).clamp(min=torch.finfo(wide.dtype).tiny)
    cosines = torch.bmm(tokens_at(wide, first), tokens_at(wide, second).transpose(1, 2)) / lengths.gather(1, second).unsqueeze(1)
    best = cosines.amax(dim=2) / lengths.gather(1, first)
    chosen = best.argsort(dim=1, descending=True, stable=True)[:, :count]
    partner = tokens_at(cosines, chosen).argmax(dim=2)
    return first.gather(1, chosen), second.gather(1, partner)


def tokens_at(x: Tensor, positions: Tensor) -> Tensor:
    """(B, n, D) of (B, L, D) at positions (B, n)."""
    return x.flatten(0, 1).index_select(0, rows_of(positions, x.shape[1])).view(*positions.shape, x.shape[2])


def rows_of(positions: Tensor, length: int) -> Tensor:
    """(B * n,) the rows of (B * length, D) at positions (B, n) of each sample."""
    return (positions + length * torch.arange(positions.shape[0], device=positions.device).unsqueeze(1)).flatten()


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How much of each token that leaves goes into the mean of the token that takes it in."""

    together: Tensor  # (B, r, r): the row of the first source of a slot has the fractions of all sources of the slot, other rows are 0
    sizes: Tensor  # (B, L - r) of the tokens that stay, afterwards


def weigh(sizes: Tensor, matching: Matching) -> Weights:
    """The weights of a merge of tokens with sizes (B, L)."""
    leaving = sizes.gather(1, matching.source)
    after = sizes.gather(1, matching.kept).scatter_add(1, matching.slot, leaving)  # whole numbers, the same in every sequence of terms
    same = matching.slot.unsqueeze(2) == matching.slot.unsqueeze(1)
    first = same.tril(-1).sum(2, keepdim=True) == 0
    return Weights(together=(same & first) * (leaving / after.gather(1, matching.slot)).unsqueeze(1), sizes=after)


def merged(x: Tensor, weights: Weights, matching: Matching) -> Tensor:
    """(B, L - r, D) from (B, L, D): each token the mean of itself and of those that it takes in, t + sum of fraction * (source - t).

    In at least fp32. No two terms meet in `index_add`, which a GPU adds in any sequence: the product has summed them up.
    """
    stay = tokens_at(x, matching.kept).to(torch.promote_types(x.dtype, torch.float32))
    differences = tokens_at(x, matching.source).to(stay.dtype) - tokens_at(stay, matching.slot)
    change = torch.bmm(weights.together.to(stay.dtype), differences)
    means = stay.flatten(0, 1).index_add(0, rows_of(matching.slot, stay.shape[1]), change.flatten(0, 1))
    return means.view(stay.shape).to(x.dtype)


class Tokens:
    """The tokens of one forward pass through blocks: their sizes, and where the class tokens are."""

    def __init__(self, merging: Merging, x: Tensor, apart: range) -> None:
        """x: (B, L, D), as the first block gets them. apart: the positions of class tokens."""
        self.merging = merging
        self.sizes = torch.ones(x.shape[:2], device=x.device)
        self.apart = torch.arange(apart.start, apart.stop, device=x.device).expand(x.shape[0], -1)  # (B, k), now
        self.matchings: list[Matching] = []

    def before(self, block: int, *streams: Tensor, timescale: Tensor | None = None) -> tuple[Tensor, ...]:
        """The streams, (B, L, D) each, as a block gets them: (B, L - r, D) if r tokens leave before it. The first has the features to match by.

        timescale: (B, L), Delta of the block before, if the tokens are chosen by it.
        """
        after, before = self.merging.tokens.get(block, (0, 0))
        if before == after:
            return streams
        matching = match(streams[0], before - after, self.apart, timescale)
        if self.merging.mode == "merge":
            weights = weigh(self.sizes, matching)
            streams, self.sizes = tuple(merged(stream, weights, matching) for stream in streams), weights.sizes
        else:
            streams = tuple(tokens_at(stream, matching.kept) for stream in streams)
            self.sizes = self.sizes.gather(1, matching.kept)
        self.apart = matching.now_at.gather(1, self.apart)
        self.matchings.append(matching)
        return streams

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """(B, 1, 1, L): what attention adds to the scores of keys, so that a token weighs as much as all it stands for. None before a merge."""
        if not self.matchings or self.merging.mode == "prune":
            return None
        return self.sizes.log().to(dtype)[:, None, None]

    def class_tokens(self, x: Tensor) -> Tensor:
        """(B, k, D) of (B, L, D)."""
        return tokens_at(x, self.apart)

    def spread(self, x: Tensor) -> Tensor:
        """The tokens at all their first positions again, (B, L at first, D) from (B, L, D): a token that left has the value of the one that took it
        in (Bolya and Hoffman, arXiv 2303.17604, section 3.2).
        """
        if not self.matchings:
            return x
        now_at = self.matchings[0].now_at
        for matching in self.matchings[1:]:
            now_at = matching.now_at.gather(1, now_at)
        return tokens_at(x, now_at)
