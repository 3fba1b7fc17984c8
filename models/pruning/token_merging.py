"""Token merging as a method: train, let tokens merge, train again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from models.pruning.base import Budget, NetworkView, PruningMethod, Stage
from models.pruning.knobs import finetune, trunk

if TYPE_CHECKING:
    from torch.nn import Module

    from models.merge_sites import Span
    from models.token_merging import Merging


@dataclass(frozen=True, kw_only=True)
class TokenMerging(PruningMethod):
    """Train, merge the most similar tokens before some blocks, fine-tune with fewer tokens. All weights stay. R-MeeTo (Shi et al., arXiv 2412.12496).

    Tokens of different windows never merge. `models.token_merging` has the formulas. R-MeeTo takes r: 5 for vim_tiny, and r: 11 for vim_small and
    vim_base.

    | score | the tokens that leave |
    |---|---|
    | cosine | of each pair of ToMe's bipartite matching the first; the most similar pairs first (Bolya et al., arXiv 2210.09461) |
    | timescale | those with the smallest Delta in the block before (its mean over channels, forward direction), each to its most similar token |

    timescale follows the idea of MTR (Ma et al., arXiv 2507.14042): a token with a small Delta hardly enters the state.
    """

    name: ClassVar[str] = "token_merging"
    r: int | float  # tokens that leave before each of the blocks; up to 0.5: the fraction of those then left, rounded
    layers: Literal["alternate", "all"] | tuple[int, ...] = (
        "alternate"  # before blocks 2, 4, 6 ... (R-MeeTo), or 1, 2, 3 ..., or those of a list, from 0
    )
    score: Literal["cosine", "timescale"] = "cosine"
    mode: Literal["merge", "prune"] = "merge"  # prune: tokens that leave are dropped, not averaged

    def __post_init__(self) -> None:
        fraction = isinstance(self.r, float)
        if not (0.0 < self.r <= 0.5 if fraction else self.r >= 1):
            raise ValueError(f"r must be 1 token or more, or a fraction above 0 and up to 0.5: what leaves goes to what stays; got {self.r:g}")
        if isinstance(self.layers, tuple) and (not self.layers or self.layers[0] < 0 or list(self.layers) != sorted(set(self.layers))):
            raise ValueError(f"layers must be alternate, all, or a list of blocks, numbered from 0, ascending, each once; got {list(self.layers)}")

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
        chosen = self.chosen(blocks)
        if self.score == "timescale":
            check_timescale(network, chosen)
        tokens = {block: numbers for span in ranges for block, numbers in self.numbers(span, chosen).items()}
        if not tokens:
            where = f"before blocks {', '.join(map(str, chosen))}" if chosen else f"with layers: {self.layers}"
            raise ValueError(f"no token leaves: r {self.r:g} {where} of {blocks} blocks with tokens; raise r, or list other layers")
        return Merging(tokens=tokens, score=self.score, mode=self.mode)

    def chosen(self, blocks: int) -> Sequence[int]:
        """The blocks, of so many, before which tokens leave. ValueError if the network has not so many."""
        if isinstance(self.layers, str):
            return range(1, blocks) if self.layers == "all" else range(2, blocks, 2)
        if self.layers[-1] >= blocks:
            raise ValueError(f"layers names block {self.layers[-1]}, and the network has {blocks} blocks with tokens, 0 to {blocks - 1}")
        return self.layers

    def numbers(self, span: Span, chosen: Sequence[int]) -> Mapping[int, tuple[int, int]]:
        """By block of a span: tokens after and before. Blocks before which none leaves are left out."""
        numbers, left = {}, span.tokens
        for block in (block for block in chosen if span.first <= block < span.first + span.blocks):
            leaving = min(round(self.r * left), left // 2) if isinstance(self.r, float) else self.r
            if leaving > left // 2:
                remedy = "lower r, give it as a fraction, or list fewer layers"
                raise ValueError(f"{leaving} tokens cannot leave before block {block}: {left} are left there, of which {left // 2} can; {remedy}")
            if leaving:
                numbers[block] = (left - leaving, left)
            left -= leaving
        return numbers

    def begin(self, network: NetworkView) -> None:
        """Lets the tokens merge from now on."""
        from models.pruning.structure import Structure

        assert network.module is not None
        merging = self.merging(network.module)
        (first, (_, before)), (last, (after, _)) = min(merging.tokens.items()), max(merging.tokens.items())
        note = f"tokens {self.mode}: {before} before block {first}, {after} from block {last} on"
        network.remove(Structure(kept={}, counts={}, notes=(note,), merging=merging))
