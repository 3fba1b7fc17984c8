"""The residual blocks of a network and the state spaces in them, and the network without some of them.

A block gives its input and what it adds to it. Without the block the next one gets the input: the network computes what one that was built without
the block computes. All other modules keep their names, so weights, masks and units of the rest stay what they are.

| family | blocks | state spaces |
|---|---|---|
| Vim | layers.i | all directions of layers.i.mixer |
| MambaVision | levels.i.blocks.j | that of levels.i.blocks.j.mixer, of the blocks that have one |
| VMamba | layers.i.blocks.j | the four directions of layers.i.blocks.j.op |
| VSSD | layers.i.blocks.j | that of layers.i.blocks.j.attn, of the blocks that have one |
| ViT, MambaOut | blocks.i, stages.i.blocks.j | none |
| others | modules whose output is their input when all their weights are 0; of a stage those in it | none |

Embedding, stem, down-sampling, norms and head are no blocks, and stay.
"""

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from models.meta_twin import meta_twin
from models.pruning.layer_kinds import STEM

BLOCKS: Mapping[str, str] = {  # by the full name of the network's class: the names of its blocks
    "models.vim.Vim": r"layers\.\d+",
    "models.mambavision.MambaVision": r"levels\.\d+\.blocks\.\d+",
    "models.vmamba.VMamba": r"layers\.\d+\.blocks\.\d+",
    "models.vssd.VSSD": r"layers\.\d+\.blocks\.\d+",
    "timm.models.vision_transformer.VisionTransformer": r"blocks\.\d+",
    "timm.models.mambaout.MambaOut": r"stages\.\d+\.blocks\.\d+",
}
ANY_SIZE = 64  # pixels of the image that shows the shapes within a network that says no size


class Absent(nn.Module):
    """In the place of a block that was removed: gives what it gets, without what only the block needed."""

    mixer = None  # what a block has, and this has not

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """`x`."""
        return x


class AbsentPair(Absent):
    """The same for blocks of Vim, which pass on a branch and the sum of the branches before it: the branch of the block before is added later."""

    def forward(self, x: Tensor, *others: Any, **__: Any) -> Any:
        """All that it gets."""
        return (x, *others)


class PassThrough(nn.Module):
    """In the place of a state space that was removed: every scan gives its input."""

    def forward(self, x: Tensor, *, reverse: bool = False) -> Tensor:
        """`x`."""
        return x


def blocks_of(network: nn.Module) -> tuple[str, ...]:
    """The names of the blocks that can be removed, in the network's order. Those that are gone are not among them."""
    rule = BLOCKS.get(_class(network))
    if rule is None:
        return tuple(_found_blocks(network))
    return tuple(name for name, module in network.named_modules() if re.fullmatch(rule, name) and not isinstance(module, Absent))


def scans_of(network: nn.Module) -> tuple[str, ...]:
    """The names of the mixers whose state space can be removed, in the network's order."""
    return tuple(name for name, module in network.named_modules() if _class(module) in SCANS and has_scan(module))


def has_scan(mixer: Any) -> bool:
    """True unless the state space of the mixer was removed."""
    return not any(isinstance(part, PassThrough) for part in mixer.modules())


def take_out(network: nn.Module, blocks: Sequence[str], scans: Sequence[str]) -> None:
    """Removes blocks, and the state spaces of mixers, in place. ValueError if the network has none of these names, or if no block would be left."""
    known, known_scans = blocks_of(network), scans_of(network)
    _check_names("block", blocks, known)
    _check_names("state space", scans, known_scans)
    if blocks and len(set(blocks)) == len(known):
        raise ValueError(f"all {len(known)} blocks would go; at least one must stay")
    for name in scans:
        mixer = network.get_submodule(name)
        SCANS[_class(mixer)](mixer)
    for name in blocks:
        owner, _, last = name.rpartition(".")
        setattr(network.get_submodule(owner), last, AbsentPair() if _class(network) == "models.vim.Vim" else Absent())


def without(network: nn.Module, blocks: Sequence[str], scans: Sequence[str]) -> nn.Module:
    """A copy of the network without some blocks and state spaces. It shares the weights that stay, and the buffers."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    twin = copy.deepcopy(network, shared)
    take_out(twin, blocks, scans)
    return twin


def _check_names(noun: str, names: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"the network has no {noun} '{unknown[0]}'; it has {', '.join(known) or 'none'}")


def _class(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__name__}"


# State spaces


def _take_from_vim(mixer: Any) -> None:
    """Without the scans, y = silu(conv(x)) silu(z) in each direction."""
    for each in mixer.directions:
        _delete(mixer, f"x_proj{each.ending}", f"dt_proj{each.ending}", each.A_log, f"D{each.ending}")
        setattr(mixer, f"ssm{each.ending}", PassThrough())
    mixer.fixed = True


def _take_from_mambavision(mixer: Any) -> None:
    """Without the scan, y = silu(conv(x)) beside z."""
    _delete(mixer, "x_proj", "dt_proj", "A_log", "D")
    mixer.ssm = PassThrough()


def _take_from_vmamba(mixer: Any) -> None:
    """Without the scans, the sum of the four directions is 4 silu(conv(x)), which goes into the norm."""
    _delete(mixer, "x_proj", "dt_projs", "x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")
    mixer.fixed, mixer.ssm = True, nn.ModuleList(PassThrough() for _ in range(4))


@torch.no_grad()
def _take_from_vssd(mixer: Any) -> None:
    """Without the state space, Y = X. The rows that make B, C and Delta go with it."""
    inner, conv = mixer.out_proj.in_features, mixer.conv2d
    mixer.in_proj.weight, mixer.in_proj.out_features = nn.Parameter(mixer.in_proj.weight[: 2 * inner].clone()), 2 * inner
    conv.weight, conv.bias = nn.Parameter(conv.weight[:inner].clone()), nn.Parameter(conv.bias[:inner].clone())
    conv.in_channels = conv.out_channels = conv.groups = inner
    _delete(mixer, "A_log", "D", "dt_bias")
    mixer.ssm = PassThrough()


def _delete(module: nn.Module, *names: str) -> None:
    for name in names:
        with suppress(AttributeError):  # S4 and S5 have parts of their own in place of these
            delattr(module, name)


SCANS: Mapping[str, Callable[[Any], None]] = {  # by the full name of a mixer's class: what takes its state space out
    "models.vim.BidirectionalMixer": _take_from_vim,
    "models.mambavision.SSMMixer": _take_from_mambavision,
    "models.vmamba.SS2D": _take_from_vmamba,
    "models.vssd.SSD": _take_from_vssd,
}


# Blocks of any network


def _found_blocks(network: nn.Module) -> Iterator[str]:
    """The residual modules that are no stage, none within another, and none of a stem.

    A stage is a list, or holds a list of residual modules, or several of one kind. Each kind of module is tried once for each shape of its input.
    """
    verdicts: dict[tuple[object, ...], bool] = {}
    residual: dict[str, nn.Module] = {}
    for name, (module, inputs) in _calls(network).items():
        settings = tuple((key, value) for key, value in vars(module).items() if isinstance(value, bool | int | float | str))
        kind = (type(module), settings, tuple(inputs.shape), tuple(tuple(parameter.shape) for parameter in module.parameters()))
        if kind not in verdicts:
            verdicts[kind] = _is_residual(module, inputs)
        if verdicts[kind]:
            residual[name] = module
    last = ""
    for name, module in residual.items():
        if (last and name.startswith(f"{last}.")) or _is_stage(name, module, residual) or any(STEM.fullmatch(part) for part in name.split(".")):
            continue
        last = name
        yield name


def _is_stage(name: str, module: nn.Module, residual: Mapping[str, nn.Module]) -> bool:
    within = {inner: other for inner, other in residual.items() if inner.startswith(f"{name}.")}
    listed = isinstance(module, nn.Sequential) or any(inner.rpartition(".")[2].isdigit() for inner in within)
    return bool(within) and (listed or max(Counter(map(type, within.values())).values()) > 1)


def _calls(network: nn.Module) -> dict[str, tuple[nn.Module, Tensor]]:
    """The modules that have weights and turn one tensor into one of its shape, with a tensor of that shape; by name, in the network's order.

    Nothing is computed: the network runs on the meta device.
    """
    twin = meta_twin(network)
    calls: dict[str, tuple[nn.Module, Tensor]] = {}

    def keep(name: str, module: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor) and inputs[0].shape == output.shape:
                calls[name] = (module, inputs[0])

        return hook

    for name, module in twin.named_modules():
        if name and any(True for _ in module.parameters()):
            module.register_forward_hook(keep(name, module))
    size = image_size(network)
    with torch.no_grad():
        twin(torch.zeros(1, 3, size, size, device="meta"))
    return {name: calls[name] for name, _ in network.named_modules() if name in calls}


@torch.no_grad()
def _is_residual(module: nn.Module, inputs: Tensor) -> bool:
    """True if the output is the input when all weights are 0, for an input without negative values: some blocks end with a ReLU."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        part._forward_hooks.clear()
    copied = copied.to_empty(device="cpu").float()
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.zero_()
    x = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0))
    try:
        return bool(torch.equal(copied(x), x))
    except (RuntimeError, IndexError, ValueError):  # a block that cannot run with zeros in its buffers, such as an index
        return False


def image_size(network: Any) -> int:
    """Pixels of the images that a network takes, or takes too if it says no size."""
    size = getattr(network, "timm_img_size", None) or getattr(getattr(network, "patch_embed", None), "img_size", None) or ANY_SIZE
    return int(size[0] if isinstance(size, tuple | list) else size)
