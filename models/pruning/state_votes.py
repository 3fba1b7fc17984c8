"""SparseSSM's importance of states: at every step of a scan the states of least importance get a vote, and those of most votes go.

Tuo and Wang, arXiv 2506.09613, theorem 1, and algorithm 1 for whole states. With A = -exp(A_log), A_log (D, N), and the state h before step t:

    importance[t, n] = sum over images and channels d of A_log[d, n]^2 h[t - 1, d, n]^2

This is what setting A_log to zero, that is A to -1, changes. A state of rate 1 is therefore the first to go, whatever it carries.
"""

from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.pruning.units import Units, units_of

WHY_NOT = {  # by class of module
    "S4D": "S4D has no A_log, and no steps that depend on the image",
    "S5": "S5 has no A_log, and no steps that depend on the image",
    "SSD": "VSSD has a rate for each head and none for a state, and sums over all tokens at once",
}


def check_states(network: nn.Module, groups: Iterable[Units]) -> None:
    """Raises ValueError, with the reason, if one of these groups of states does not belong to a selective scan."""
    for units in groups:
        owner = network.get_submodule(units.name.rpartition(".")[0])
        if not hasattr(owner, "scan"):
            kind = type(owner).__name__
            raise ValueError(f"criterion sparsessm cannot score {units.name}: {WHY_NOT.get(kind, f'{kind} has no selective scan')}; choose another")


class StateImportance:
    """Sums the importance of the states of a model's selective scans while it is open."""

    def __init__(self, model: nn.Module) -> None:
        self.groups = units_of(model, ("state",))
        check_states(model, self.groups)
        self.mixers: dict[str, Any] = {units.name: model.get_submodule(units.name.rpartition(".")[0]) for units in self.groups}
        self.sums: dict[str, Tensor] = {}
        self.next: dict[int, str] = {}  # of a mixer, the group whose scan comes next

    def __enter__(self) -> Self:
        self.hooks = []
        self.scans = {id(mixer): (mixer, mixer.scan) for mixer in self.mixers.values()}
        for units in self.groups:
            mixer = self.mixers[units.name]
            self.next[id(mixer)] = units.name
            if isinstance(units.root, nn.Module):  # a direction has its own, called before its scan
                self.hooks.append(units.root.register_forward_pre_hook(partial(self._note, id(mixer), units.name)))
        for mixer, scan in self.scans.values():
            mixer.scan = partial(self._scan, id(mixer), scan)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self.hooks:
            hook.remove()
        for mixer, scan in self.scans.values():
            mixer.scan = scan

    def _note(self, mixer: int, name: str, *_: object) -> None:
        self.next[mixer] = name

    def _scan(
        self, mixer: int, scan: Callable[..., Any], u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Any, **options: Any
    ) -> Any:
        """Adds the importance of one call, then scans as the mixer does."""
        name = self.next[mixer]
        bias, softplus, reverse = options.get("delta_bias"), options.get("delta_softplus", False), options.get("reverse", False)
        new = importance(u, delta, A, B, delta_bias=bias, delta_softplus=softplus, reverse=reverse)
        self.sums[name] = self.sums[name] + new if name in self.sums else new
        return scan(u, delta, A, B, C, *rest, **options)

    def totals(self, total: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """(steps, states) fp64 of every group. `total` sums over ranks."""
        return {units.name: total(self.sums[units.name]) for units in self.groups}


@torch.no_grad()
def importance(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, *, delta_bias: Tensor | None = None, delta_softplus: bool = False, reverse: bool = False
) -> Tensor:
    """(L, N) fp64, in the order in which the scan steps. Arguments: as `models.ssm.scan.selective_scan`. It holds one state, (B, D, N), at a time."""
    wide = torch.promote_types(u.dtype, torch.float32)
    batch, channels, length = u.shape
    step = delta.to(wide) if delta_bias is None else delta.to(wide) + delta_bias.to(wide).unsqueeze(-1)
    step = F.softplus(step) if delta_softplus else step
    inputs = (B.unsqueeze(1) if B.ndim == 3 else B).to(wide)
    groups, states = inputs.shape[1:3]
    rates, squares = A.to(wide).view(groups, -1, states), A.to(wide).neg().log().square().view(groups, -1, states)
    drive = step * u.to(wide)
    state = u.new_zeros((batch, groups, channels // groups, states), dtype=wide)
    rows = []
    for at in reversed(range(length)) if reverse else range(length):
        rows.append((state.square() * squares).sum((0, 1, 2)))
        steps, drives = (part[..., at].view(batch, groups, -1, 1) for part in (step, drive))
        state = torch.exp(steps * rates) * state + drives * inputs[..., at].unsqueeze(2)
    return torch.stack(rows).double()


def vote(sums: Tensor, ratio: float) -> Tensor:
    """Scores, (N,), of which the lowest go: minus the fraction of steps that voted for a state. sums: (L, N).

    Each step votes for the round(ratio * N) states of least importance; the first step, before which every state is zero, does not. Of as many votes,
    the state of less importance over all steps goes.
    """
    voters = sums[1:] if len(sums) > 1 else sums
    states = sums.shape[1]
    lowest = voters.argsort(dim=1, stable=True)[:, : round(ratio * states)]
    votes = torch.bincount(lowest.flatten(), minlength=states)
    whole = sums.sum(0)
    return (whole / (2 * whole.max().clamp(min=torch.finfo(whole.dtype).tiny)) - votes) / len(voters)
