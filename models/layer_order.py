"""The order of a network's layers, for rates that fall from the head to the stem (BEiT, arXiv 2106.08254, appendix)."""

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

STAGED = re.compile(r"(?:levels|stages|layers)\.(\d+)\.blocks\.(\d+)\.")  # levels.2.blocks.3.mlp.fc1.weight
PLAIN = re.compile(r"(?:layers|blocks)\.(\d+)\.(?!downsample\.)")  # layers.3.norm.weight, blocks.3.attn.qkv.weight
STAGE = re.compile(r"(?:levels|stages|layers)\.(\d+)\.")


def layer_numbers(names: Iterable[str]) -> dict[str, int]:
    """The layer of every parameter: 0 for the stem, 1 to n for the blocks, n + 1 for the head. `names`: of parameters, in the model's order.

    What lies in a stage beside its blocks belongs to the stage's first block if it stands before it, and to its last block otherwise. A norm after
    the last block belongs to that block. This is the order of timm's `group_matcher`. ValueError if no block has a number.
    """
    every = list(names)
    blocks: dict[tuple[int, ...], int] = {}
    for name in every:
        if (block := block_of(name)) is not None:
            blocks.setdefault(block, len(blocks) + 1)
    if not blocks:
        raise ValueError("layer_decay needs a network whose blocks have numbers, such as layers.0 and layers.1; this one has none: leave it out")
    numbers: dict[str, int] = {}
    latest = 0  # the last block before a parameter
    for name in every:
        block = block_of(name)
        latest = latest if block is None else blocks[block]
        numbers[name] = latest if block is not None else beside(name, latest, blocks)
    return numbers


def block_of(name: str) -> tuple[int, ...] | None:
    """(stage, block), or (block,) in a network without stages, of a parameter; None if it is in no block."""
    matched = STAGED.match(name) or PLAIN.match(name)
    return tuple(map(int, matched.groups())) if matched else None


def beside(name: str, latest: int, blocks: dict[tuple[int, ...], int]) -> int:
    """The layer of a parameter that is in no block, after block `latest`."""
    stage = STAGE.match(name)
    if stage:
        own = [number for block, number in blocks.items() if block[0] == int(stage[1])]
        return (min(own) if latest < min(own) else max(own)) if own else latest
    if latest == 0:
        return 0
    return len(blocks) if name.startswith(("norm", "classifier.norm")) else len(blocks) + 1


def layers_of(network: nn.Module) -> dict[str, int]:
    """The layer of every parameter of a network, as `layer_numbers` has it; of timm's networks as timm's own `group_matcher` has it."""
    matcher: Any = getattr(network, "group_matcher", None) if hasattr(network, "timm_name") else None
    if matcher is None:
        return layer_numbers(name for name, _ in network.named_parameters())
    from timm.models import group_parameters

    numbers: dict[str, int] = group_parameters(network, matcher(coarse=False), reverse=True)
    return numbers


def layer_scales(network: nn.Module, decay: float) -> dict[str, float]:
    """The factor of the learning rate of every parameter: decay^(layers above it), 1 for the head. ValueError as in `layer_numbers`."""
    numbers = layers_of(network)
    top = max(numbers.values())
    return {name: decay ** (top - number) for name, number in numbers.items()}
