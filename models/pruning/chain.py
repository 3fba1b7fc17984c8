"""Several methods one after another: each starts from the network that the method before it leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from models.pruning.base import Budget, PruningMethod, Stage
from models.pruning.knobs import is_trunk

if TYPE_CHECKING:
    from torch.nn import Module

NOMINAL = Budget(epochs=1, finetune_epochs=1)  # with which the kinds of a method's stages are looked at


@dataclass(frozen=True, kw_only=True)
class Chain(PruningMethod):
    """The stages of the first method; then, of each further method, its stages after the dense training, from the result of the method before it.

    What a method has dropped stays dropped: masks are kept, and units and blocks that are removed stay removed. The fine-tuning epochs of the budget
    are divided among the methods, so that a chain trains as long as one method does. `split` gives the proportions, by default equal ones.
    """

    name: ClassVar[str] = "chain"
    methods: tuple[PruningMethod, ...]
    split: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.methods) < 2:
            raise ValueError("a chain has at least two methods; write one method without a chain")
        if any(isinstance(method, Chain) for method in self.methods):
            raise ValueError("a chain holds no other chain: write all methods into one")
        self._check_split()
        for number, method in enumerate(self.methods):
            if method.name == "dense":
                raise ValueError("dense prunes nothing, so it has no place in a chain: leave it out, and give it an entry of its own as the control")
            if number:
                self._check_link(number)

    def _check_split(self) -> None:
        if self.split and (len(self.split) != len(self.methods) or min(self.split) < 0 or sum(self.split) < 1):
            rule = f"one whole number of 0 or more for each of the {len(self.methods)} methods, not all of them 0"
            raise ValueError(f"split must have {rule}, got {list(self.split)}")

    def _check_link(self, number: int) -> None:
        """Raises ValueError if a method cannot follow those before it."""
        method, before = self.methods[number], self.methods[:number]
        stages = method.stages(NOMINAL)
        if not is_trunk(stages[0]):
            raise ValueError(f"{method.name} prunes while it trains from scratch, so it can only be the first of a chain: move it to the front")
        if any(stage.start == "rewind" for stage in stages):
            remedy = "set rewind to learning_rate or none, or move it to the front"
            raise ValueError(f"{method.name} would rewind to weights from before {before[-1].name}: {remedy}")
        if method.name == "token_merging" and any(first.name == method.name for first in before):
            raise ValueError("token_merging is there twice, and the tokens of a network merge by one rule: give one with the layers of both")
        if method.removes_units and (patterned := next((first for first in before if first.keeps_pattern), None)):
            broken = f"{method.name} would break the blocks of four of {patterned.name}"
            raise ValueError(f"{broken}, because it removes units from them: put {method.name} first")
        if (reads_delta(method) and any(first.removes_blocks for first in before)) or (method.removes_blocks and any(map(reads_delta, before))):
            raise ValueError("score: timescale reads Delta of the block before, which block_removal may remove: use score: cosine")
        for first in nearest_first(before):
            if aims(first) and aims(method) and _groups(first) == _groups(method) and _sparsity(method) <= _sparsity(first):
                remedy = f"give it a sparsity above {_sparsity(first):g}, or leave it out"
                raise ValueError(f"{method.name} at sparsity {_sparsity(method):g} drops nothing more than {first.name}: {remedy}")

    @property
    def proportions(self) -> tuple[int, ...]:
        """`split` in its smallest numbers; empty for equal parts, the default."""
        return tuple(part // math.gcd(*self.split) for part in self.split) if len(set(self.split)) > 1 else ()

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """The path through all methods. ValueError if one of them cannot work on its part of the budget."""
        parts = self.budgets(budget)
        first, *others = zip(self.methods, parts, strict=True)
        path = first[0].stages(first[1])
        for method, part in others:
            path += method.stages(part)[1:]
        return path

    def budgets(self, budget: Budget) -> tuple[Budget, ...]:
        """What each method gets: all epochs of the dense training, which they share, and a part of the others. Later methods get the remainder."""
        weights = self.split or (1,) * len(self.methods)
        bounds = [budget.finetune_epochs * sum(weights[:count]) // sum(weights) for count in range(len(weights) + 1)]
        return tuple(Budget(epochs=budget.epochs, finetune_epochs=end - start) for start, end in zip(bounds, bounds[1:], strict=False))

    def check(self, network: Module) -> None:
        """Raises ValueError, which names the method, if one of them cannot prune the network. All are held against the whole network."""
        for method in self.methods:
            try:
                method.check(network)
            except ValueError as error:
                raise ValueError(f"{method.name}: {error}") from None


def reads_delta(method: PruningMethod) -> bool:
    """True if a method goes on needing Delta in blocks of the network."""
    return getattr(method, "score", None) == "timescale"


def nearest_first(before: Sequence[PruningMethod]) -> Iterator[PruningMethod]:
    """The methods before one, the last method first, as far as the last removal of units, which changes the weights behind a sparsity."""
    for method in reversed(before):
        if method.removes_units or method.removes_blocks:
            return
        yield method


def aims(method: Any) -> bool:
    """True if a method has a knob for the sparsity of all weights that it prunes, and a value; a rate of the remaining weights is none."""
    return any(field.name == "sparsity" and method.sparsity is not None for field in fields(method))


def _sparsity(method: Any) -> float:
    return float(method.sparsity)


def _groups(method: Any) -> frozenset[str]:
    return frozenset(method.groups)
