"""Token merging as a method: train, let tokens merge, train again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from models.pruning.base import Budget, NetworkView, PruningMethod, Stage
from models.pruning.knobs import check_count, finetune, trunk

if TYPE_CHECKING:
    from torch.nn import Module

    from models.merge_sites import Span
    from models.token_merging import Merging


@dataclass(frozen=True, kw_only=True)
class TokenMerging(PruningMethod):
    """Train, merge the most similar tokens before some blocks, fine-tune with fewer tokens. All weights stay. R-MeeTo (Shi et al., arXiv 2412.12496).

    Exactly one of `r` and `ratio`. Tokens of different windows never merge. `models.token_merging` has the formulas. R-MeeTo's own numbers for
    images of 224 px are r: 5 for vim_tiny, and r: 11 for vim_small and vim_base.

    | score | the tokens that leave |
    |---|---|
    | cosine | of each pair of ToMe's bipartite matching the first; the most similar pairs first (Bolya et al., arXiv 2210.09461) |
    | timescale | those with the smallest Delta in the block before (its mean over channels, forward direction), each to its most similar token |

    After MTR (Ma et al., arXiv 2507.14042), whose score rests on Delta too: a token of a small Delta hardly enters the state.
    """

    name: ClassVar[str] = "token_merging"
    r: int | None = None  # tokens that leave before each of the blocks
    ratio: float | None = None  # or the fraction of the tokens then left, rounded
    layers: tuple[int, ...] | None = None  # blocks before which tokens leave, from 0; None: by the interval
    interval: int = 2  # 2: blocks 2, 4, 6 ... (R-MeeTo)
    score: Literal["cosine", "timescale"] = "cosine"
    mode: Literal["merge", "prune"] = "merge"  # prune: tokens that leave are dropped, not averaged

    def __post_init__(self) -> None:
        if (self.r is None) == (self.ratio is None):
            raise ValueError("token_merging needs r (tokens) or ratio (a fraction of them), and only one of the two")
        if self.r is not None:
            check_count("r", self.r, "token")
        if self.ratio is not None and not 0.0 < self.ratio <= 0.5:
            raise ValueError(f"ratio must be above 0 and at most 0.5, because each token that leaves needs another that stays; got {self.ratio:g}")
        check_count("interval", self.interval, "block")
        if self.layers is None:
            return
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise ValueError(f"layers must be numbers of blocks from 0, ascending, each once; got {list(self.layers)}")
        if self.interval != 2:
            raise ValueError("layers and interval both choose the blocks: give only one of them")

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """The dense training, then fine-tuning with merging. Tokens merge even without epochs to fine-tune."""
        return trunk(budget), finetune(budget, self)

    def check(self, network: Module) -> None:
        """Raises ValueError, with numbers, if tokens of the network cannot merge, or not so many."""
        self.merging(network)

    def merging(self, network: Module) -> Merging:
        """Before which blocks of the network how many tokens leave. ValueError: see `check`."""
        from models.merge_sites import check_timescale, spans
        from models.token_merging import Merging

        ranges = spans(network)
        blocks = ranges[-1].first + ranges[-1].blocks
        if self.layers is not None and self.layers[-1] >= blocks:
            raise ValueError(f"layers names block {self.layers[-1]}, and the network has {blocks} blocks with tokens, 0 to {blocks - 1}")
        chosen = range(self.interval, blocks, self.interval) if self.layers is None else self.layers
        if self.score == "timescale":
            check_timescale(network, chosen)
        tokens = {block: numbers for span in ranges for block, numbers in self.numbers(span, chosen).items()}
        if not tokens:
            where = f"before blocks {', '.join(map(str, chosen))} of {blocks}" if chosen else f"{self.interval} is no block: there are {blocks}"
            raise ValueError(f"no token leaves: {self.amount} {where}; raise ratio, or choose other blocks")
        return Merging(tokens=tokens, score=self.score, mode=self.mode)

    def numbers(self, span: Span, chosen: range | tuple[int, ...]) -> Mapping[int, tuple[int, int]]:
        """By block of a span: tokens after and before. Blocks before which none leaves are left out."""
        numbers, left = {}, span.tokens
        for block in (block for block in chosen if span.first <= block < span.first + span.blocks):
            leaving = self.r if self.r is not None else min(round((self.ratio or 0.0) * left), left // 2)
            if leaving > left // 2:
                remedy = "lower r, or name fewer layers"
                raise ValueError(f"{self.amount} cannot leave before block {block}: {left} are left there, of which {left // 2} can; {remedy}")
            if leaving:
                numbers[block] = (left - leaving, left)
            left -= leaving
        return numbers

    @property
    def amount(self) -> str:
        """How many tokens leave, in the words of an error."""
        return f"r {self.r} tokens" if self.r is not None else f"ratio {self.ratio:g} of the tokens"

    def begin(self, network: NetworkView) -> None:
        """Lets the tokens merge from now on."""
        from models.pruning.structure import Structure

        assert network.module is not None
        merging = self.merging(network.module)
        (first, (_, before)), (last, (after, _)) = min(merging.tokens.items()), max(merging.tokens.items())
        note = f"tokens {self.mode}: {before} before block {first}, {after} from block {last} on"
        network.remove(Structure(kept={}, counts={}, notes=(note,), merging=merging))
