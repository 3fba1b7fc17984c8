"""The part of every fp32 master weight that this rank holds, for every ZeRO stage and dtype.

    stage 0 fp32   the parameter itself, whole, on every rank
    stage 0 bf16   the fp32 master that is kept beside it (jobs.parallel.bf16), whole, on every rank
    stages 1, 2    a slice of the rank's flat partition; it may hold a part of a parameter, or nothing of it
    stage 3        an equal part of every parameter, the last part padded

Masks, averaged weights, checkpoints and reads of whole weights all use this view.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from jobs.parallel.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """The part of one parameter that this rank holds: `length` consecutive elements, from `start` of its flattened form."""

    name: str
    parameter: nn.Parameter
    shape: torch.Size  # of the whole parameter
    owner: Tensor  # the tensor that the torch optimizer updates
    offset: int  # of the first element within the flattened owner
    start: int
    length: int  # 0: this rank holds nothing of the parameter

    def master(self) -> Tensor:
        """A view, (length,), of the fp32 weights."""
        return self.owner.data.view(-1).narrow(0, self.offset, self.length)

    def cut(self, whole: Tensor) -> Tensor:
        """This fragment's elements, (length,), of a tensor of the parameter's shape."""
        return whole.reshape(-1).narrow(0, self.start, self.length)

    def states(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Views, (length,), of the optimizer's moments. Empty before the first step."""
        state = optimizer.state.get(self.owner, {})
        return {
            key: value.view(-1).narrow(0, self.offset, self.length)
            for key, value in state.items()
            if isinstance(value, Tensor) and value.shape == self.owner.shape
        }


class Fragments:
    """Every trained parameter of an engine, by name, in the model's order."""

    def __init__(self, engine: Engine) -> None:
        """Locates every fragment once; DeepSpeed never moves them."""
        self.engine = engine
        self.replicated = engine.recipe.zero_stage == 0  # every rank holds everything
        named = [(name, parameter) for name, parameter in engine.module.named_parameters() if parameter.requires_grad]
        self.by_name: dict[str, Fragment] = {name: located(engine, name, parameter) for name, parameter in named}

    def owners(self) -> list[Tensor]:
        """The tensors that the torch optimizer updates, each once, in the same sequence in every run."""
        return list({id(fragment.owner): fragment.owner for fragment in self.by_name.values()}.values())

    def flats(self) -> list[Tensor]:
        """Views, one-dimensional, of the data of all owners: few operations on them do what one for each fragment would."""
        return [owner.data.view(-1) for owner in self.owners()]

    def parts(self, flats: Sequence[Tensor]) -> dict[str, Tensor]:
        """Each fragment's view, (length,), by name, of tensors laid out as `flats`."""
        whole = {id(owner): flat for owner, flat in zip(self.owners(), flats, strict=True)}
        return {name: whole[id(fragment.owner)].narrow(0, fragment.offset, fragment.length) for name, fragment in self.by_name.items()}

    def gather(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole fp32 tensors from every rank's parts, bit for bit; a collective. parts: name -> (length,) fp32."""
        shapes = {name: self.by_name[name].shape for name in parts}
        if self.replicated or self.engine.ranks.world == 1:
            return {name: part.clone().view(shapes[name]) for name, part in parts.items()}
        sizes = [shape.numel() for shape in shapes.values()]
        buffer = torch.zeros(sum(sizes), dtype=torch.int32, device=self.engine.ranks.device)
        whole = dict(zip(shapes, torch.split(buffer, sizes), strict=True))
        for name, part in parts.items():
            # Bit patterns: adding zeros to an integer is exact, and keeps -0.0 and NaN.
            self.by_name[name].cut(whole[name]).copy_(part.float().view(torch.int32))
        self.engine.ranks.sum(buffer)
        return {name: whole[name].view(torch.float32).view(shape).clone() for name, shape in shapes.items()}

    def weights(self, *names: str) -> dict[str, Tensor]:
        """Whole fp32 master weights, of all parameters unless names are given; a collective."""
        return self.gather({name: self.by_name[name].master() for name in names or self.by_name})

    def gradient(self, name: str) -> Tensor:
        """The whole fp32 gradient, averaged over the global batch; a collective. It exists between the last backward pass and the step."""
        return self.gather({name: self.local_gradient(name)})[name]

    def local_gradient(self, name: str) -> Tensor:
        """This rank's part, (length,) fp32, of the averaged gradient; zeros where the loss did not depend on the parameter."""
        fragment = self.by_name[name]
        stored = stored_gradient(self.engine, fragment)
        return torch.zeros_like(fragment.master()) if stored is None else stored.float()

    @torch.no_grad()
    def zero_gradients(self, flats: Mapping[int, Tensor], parts: Mapping[str, Tensor]) -> None:
        """Zeroes elements of this rank's part of the averaged gradients, given as bool by owner and by parameter; see `flats` and `parts`."""
        if self.engine.masters is not None:  # gradients are laid out as masters
            owners = self.owners()
            for number, where in flats.items():
                gradient = owners[number].grad
                assert gradient is not None
                gradient.view(-1).masked_fill_(where, 0.0)
            return
        for name, where in parts.items():
            stored = stored_gradient(self.engine, self.by_name[name])
            if stored is not None:
                stored.masked_fill_(where, 0.0)

    @torch.no_grad()
    def clip_values(self, limit: float) -> None:
        """Clips every element of this rank's part of the averaged gradients to [-limit, limit]; as torch.nn.utils.clip_grad_value_."""
        for fragment in self.by_name.values():
            stored = stored_gradient(self.engine, fragment)
            if stored is not None:
                stored.clamp_(-limit, limit)

    @torch.no_grad()
    def add_l1(self, name: str, strength: float) -> None:
        """Adds the gradient of an L1 penalty, strength * sign(w), to this rank's part of the averaged gradient."""
        fragment = self.by_name[name]
        stored = stored_gradient(self.engine, fragment)
        if stored is not None:
            stored.add_(fragment.master().sign(), alpha=strength)

    @torch.no_grad()
    def write(self, weights: Mapping[str, Tensor]) -> None:
        """Sets master and parameter from whole tensors that are the same on every rank."""
        for name, value in weights.items():
            fragment = self.by_name[name]
            fragment.master().copy_(fragment.cut(value.to(fragment.owner.device)))
            write_parameter(fragment, value)


@torch.no_grad()
def write_parameter(fragment: Fragment, value: Tensor) -> None:
    """Sets the values that the forward pass reads, in the parameter's own dtype, from a whole tensor."""
    parameter = fragment.parameter
    if not hasattr(parameter, "ds_id"):
        parameter.data.copy_(value)
        return
    cast(Stage3Parameter, parameter).ds_tensor.data.narrow(0, 0, fragment.length).copy_(fragment.cut(value))
    if parameter.data.shape == fragment.shape:  # stage 3 keeps small parameters gathered
        parameter.data.copy_(value)


# where DeepSpeed keeps things


class Stage3Parameter(Protocol):
    """What ZeRO stage 3 adds to a parameter."""

    ds_shape: torch.Size  # whole
    ds_numel: int  # whole
    ds_tensor: Tensor  # this rank's part


class Address(Protocol):
    """A range of elements in a flat tensor."""

    start: int
    numel: int


class Mapping12(Protocol):
    """Where ZeRO stages 1 and 2 keep a parameter's fp32 elements (hp) for its own (lp)."""

    param_group_index: int
    lp_fragment_address: Address
    hp_fragment_address: Address

    def get_lp_grad_fragment(self, index_in_param_group: int) -> Tensor:
        """This rank's part of the gradient."""


class Stage12Parameter(Protocol):
    """What ZeRO stages 1 and 2 add to a parameter."""

    _hp_mapping: Mapping12 | None  # None: this rank holds nothing of it
    _index_in_param_group: int


def located(engine: Engine, name: str, parameter: nn.Parameter) -> Fragment:
    """The fragment of a parameter."""
    wrapper, rank = engine.deepspeed.optimizer, engine.ranks.rank
    fragment = partial(Fragment, name=name, parameter=parameter)
    if engine.recipe.zero_stage == 3:
        at_3 = cast(Stage3Parameter, parameter)
        group, offset, part = wrapper.grad_position[wrapper.get_param_id(parameter)]
        owner, start = wrapper.fp32_partitioned_groups_flat[group], min(rank * part, at_3.ds_numel)
        return fragment(shape=torch.Size(at_3.ds_shape), owner=owner, offset=offset, start=start, length=min(part, at_3.ds_numel - start))
    if engine.recipe.zero_stage:
        mapping = cast(Stage12Parameter, parameter)._hp_mapping
        if mapping is None:
            return fragment(shape=parameter.shape, owner=wrapper.single_partition_of_fp32_groups[0], offset=0, start=0, length=0)
        owner, address = wrapper.single_partition_of_fp32_groups[mapping.param_group_index], mapping.lp_fragment_address
        offset = mapping.hp_fragment_address.start
        return fragment(shape=parameter.shape, owner=owner, offset=offset, start=address.start, length=address.numel)
    owner, offset = (parameter, 0)
    if engine.masters is not None:
        master = engine.masters.by_parameter[parameter]
        owner, offset = master.owner, master.offset
    return fragment(shape=parameter.shape, owner=owner, offset=offset, start=0, length=parameter.numel())


def stored_gradient(engine: Engine, fragment: Fragment) -> Tensor | None:
    """The tensor, (length,), in which DeepSpeed keeps this rank's averaged gradient until the step. Writing to it changes the step."""
    parameter = fragment.parameter
    if engine.recipe.zero_stage == 3:
        stored: Tensor = engine.deepspeed.optimizer._get_fp32_grad_state_partition(param=parameter, release_swap_buffers=True)[0]
        return stored.view(-1).narrow(0, 0, fragment.length)
    if engine.recipe.zero_stage:
        at_12 = cast(Stage12Parameter, parameter)
        return fragment.master() if at_12._hp_mapping is None else at_12._hp_mapping.get_lp_grad_fragment(at_12._index_in_param_group).view(-1)
    if engine.masters is not None:
        return engine.masters.gradient(parameter)
    return None if parameter.grad is None else parameter.grad.view(-1)
