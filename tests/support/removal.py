"""Small networks of every variant, moved away from their initialisation so that nothing is zero or one by accident."""

from collections.abc import Sequence

import torch
from torch import nn

from models.pruning.structure import Group, Kept, check_kept
from models.registry import create_model

VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "vim": ("vim_micro", {}),
    "vim+se": ("vim_micro", {"se": True}),
    "vim+mobilenet": ("vim_micro", {"mobilenet": {"expand": 2}}),
    "vim+s4": ("vim_micro", {"s4": True}),
    "vim+s5": ("vim_micro", {"s5": {"d_state": 8, "blocks": 2}}),
    "vim, four paths": ("vim_micro", {"scan": ["h", "h_flip", "w2", "v_flip"]}),
    "vim, three paths+mobilenet+s4+se": ("vim_micro", {"scan": ["v", "w4_flip", "v"], "mobilenet": True, "s4": True, "se": True}),
    "mambavision": ("mambavision_micro", {}),
    "mambavision, layer scale": ("mambavision_micro", {"layer_scale": 0.5}),
    "mambavision+swa": ("mambavision_micro", {"swa": {"window": 3, "shift": 1}}),
    "mambavision+s4": ("mambavision_micro", {"s4": True}),
    "mambavision+s5": ("mambavision_micro", {"s5": {"d_state": 8}}),
    "mambavision+attention_pool": ("mambavision_micro", {"attention_pool": True}),
    "mambavision+attention_pool everywhere": ("mambavision_micro", {"attention_pool": {"downsample": True, "heads": 2}}),
    "mambavision+convnext": ("mambavision_micro", {"convnext": True}),
    "mambavision+convnext, plain convolutions": ("mambavision_micro", {"convnext": {"kernel": 7, "separable": False, "fewer_blocks": False}}),
    "mambavision+se": ("mambavision_micro", {"se": True}),
    "mambavision+mobilenet": ("mambavision_micro", {"mobilenet": {"expand": 2}}),
    "mambavision+mobilenet+convnext+se": ("mambavision_micro", {"mobilenet": True, "convnext": True, "se": True}),
    "vmamba": ("vmamba_micro", {}),
    "vmamba, wider": ("vmamba_micro", {"expand": 2, "d_state": 4}),
    "vmamba+se+mobilenet": ("vmamba_micro", {"se": True, "mobilenet": {"expand": 2}}),
    "vmamba+s4": ("vmamba_micro", {"s4": {"d_state": 8}}),
    "vmamba+s5": ("vmamba_micro", {"s5": {"d_state": 8}}),
    "vssd": ("vssd_micro_32", {"d_state": 4}),
    "vssd+se+mobilenet": ("vssd_micro_32", {"d_state": 4, "se": True, "mobilenet": {"expand": 2}}),
    "vit": ("vit_micro", {}),
    "mambaout": ("mambaout_micro", {}),
}
SMALLER: dict[str, dict[str, object]] = {
    "vim_micro": {"dim": 16, "depth": 2},
    "mambavision_micro": {"dim": 8, "in_dim": 6, "depths": [1, 1, 2, 2]},
    "vmamba_micro": {"dim": 8, "depths": [1, 1, 1, 1]},
    "vssd_micro_32": {"dim": 8, "depths": [1, 1, 1, 1], "heads": [2, 4, 4, 4]},
    "vit_micro": {"dim": 16, "depth": 2},
    "mambaout_micro": {"dims": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
}


def small_network(variant: str, seed: int = 0) -> nn.Module:
    """The network of a variant, in evaluation mode."""
    name, options = VARIANTS[variant]
    return moved(create_model(name, 10, 32, **SMALLER[name], **options), seed)


@torch.no_grad()
def moved(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with all its parameters and statistics displaced at random."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.add_(torch.rand(buffer.shape, generator=generator))
    return network.eval()


@torch.no_grad()
def silence(model: nn.Module, groups: Sequence[Group], kept: Kept) -> None:
    """Zeroes what `remove` would remove: the masked network, whose outputs are those of the smaller one."""
    check_kept(groups, kept)
    for group in groups:
        if group.name in kept:
            gone = sorted(set(range(group.count)) - set(kept[group.name]))
            for owned in group.owned:
                parameter = model.get_parameter(owned.parameter)
                parameter.index_fill_(owned.dimension, owned.indices[gone].flatten().to(parameter.device), 0.0)


def images(count: int = 2) -> torch.Tensor:
    """(count, 3, 32, 32), always the same."""
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(9))
