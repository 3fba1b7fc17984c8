"""Greedy removal against a loop over all candidates that builds every network anew."""

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch.nn.functional import cross_entropy

from models.blocks import blocks_of, scans_of, take_out
from models.pruning.base import Budget, NetworkView
from models.pruning.block_removal import lowest
from models.pruning.registry import create_method, method_label
from models.pruning.structure import Structure
from models.registry import create_model
from tests.support.removal import images, moved, small_network

LABELS = torch.tensor([3, 7])


def view(network: torch.nn.Module, removed: list[Structure], said: list[str]) -> NetworkView:
    """A view without an engine, whose losses come from whole copies."""

    @torch.no_grad()
    def losses(removals: Sequence[Structure], batches: int) -> list[float]:
        values = []
        for removal in removals:
            twin = copy.deepcopy(network)
            take_out(twin, removal.blocks, removal.scans)
            values.append(float(cross_entropy(twin(images()).double(), LABELS)))
        return values

    nothing = {"read_weight": torch.zeros, "read_gradient": torch.zeros, "input_norms": {}.get, "apply": lambda masks: None}
    return NetworkView(names=(), module=network, losses=losses, remove=removed.append, say=said.append, **nothing)


def greedy(network: torch.nn.Module, unit: str, count: int) -> list[str]:
    """The names that go, by brute force."""
    gone: list[str] = []
    candidates = blocks_of(network) if unit == "block" else scans_of(network)
    for _ in range(count):
        scores = {}
        for name in candidates:
            if name not in gone:
                twin = copy.deepcopy(network)
                names = (*gone, name)
                take_out(twin, names if unit == "block" else (), names if unit == "ssm" else ())
                with torch.no_grad():
                    scores[name] = float(cross_entropy(twin(images()).double(), LABELS))
        gone.append(sorted(scores, key=lambda name: scores[name])[0])
    return gone


DEEP = {"vim": {"dim": 8, "depth": 4, "d_state": 2}, "mambaout": {"dims": [8, 8, 8, 8], "depths": [1, 2, 1, 1]}}


@pytest.mark.parametrize(("family", "unit", "count"), [("vim", "block", 3), ("vim", "ssm", 4), ("mambaout", "block", 2)])
def test_the_choice_is_that_of_a_loop_over_all_candidates(family, unit, count):
    network = moved(create_model({"vim": "vim_micro", "mambaout": "mambaout_femto"}[family], 10, 32, **DEEP[family]), seed=4)
    removed, said = [], []
    create_method("block_removal", blocks=count, unit=unit).begin(view(network, removed, said))
    (structure,) = removed
    gone = greedy(network, unit, count)
    assert (structure.blocks if unit == "block" else structure.scans) == tuple(gone)
    assert len(said) == count + 1 and all(f"without {name}: " in line for name, line in zip(gone, said[1:], strict=True))
    tries = sum(len(structure.counts) - k for k in range(count))
    assert said[0] == f"block_removal: {count} of {len(structure.counts)} go, {tries} networks x 4 batches are tried"
    assert sum(kept for kept, _ in structure.summary.values()) == len(structure.counts) - count


def test_of_equal_losses_the_first_goes_and_no_number_is_the_highest():
    assert lowest([2.0, 1.0, 1.0]) == (1.0, 1) and lowest([math.nan, 3.0]) == (3.0, 1) and lowest([math.nan, math.inf]) == (math.inf, 0)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({}, "give blocks, .*or ratio, .*got neither"),
        ({"blocks": 1, "ratio": 0.5}, "got both"),
        ({"blocks": 0}, "blocks must be at least 1 block, got 0"),
        ({"ratio": 1.0}, r"ratio must be in \[0, 1\), got 1"),
        ({"blocks": 1, "batches": 0}, "batches must be at least 1 batch"),
    ],
)
def test_knobs_are_checked(knobs, said):
    with pytest.raises(ValueError, match=said):
        create_method("block_removal", **knobs)


@pytest.mark.parametrize(
    ("variant", "knobs", "said"),
    [
        ("vim", {"blocks": 2}, "blocks 2 removes 2 of the network's 2 blocks; from 1 to 1 can go"),
        ("vim", {"ratio": 0.1}, "ratio 0.1 removes 0 of the network's 2 blocks; from 1 to 1 can go"),
        ("vim", {"blocks": 3, "unit": "ssm"}, "blocks 3 removes 3 of the network's 2 state spaces; from 1 to 2 can go"),
        ("vit", {"blocks": 1, "unit": "ssm"}, "VisionTransformer has no state space; use unit: block"),
    ],
)
def test_a_network_is_refused_with_numbers(variant, knobs, said):
    with pytest.raises(ValueError, match=said):
        create_method("block_removal", **knobs).check(small_network(variant))


def test_a_network_without_residual_blocks_is_refused():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 62**2, 2))
    with pytest.raises(ValueError, match="Sequential has no residual blocks: there is nothing to remove"):
        create_method("block_removal", blocks=1).check(network)


def test_the_only_block_of_a_network_stays():
    with pytest.raises(ValueError, match="blocks 1 removes 1 of the network's 1 blocks; one must stay"):
        create_method("block_removal", blocks=1).check(create_model("vim_micro", 10, 32, dim=8, depth=1))


def test_stages_and_label():
    method = create_method("block_removal", blocks=2, unit="ssm")
    assert [(stage.name, stage.epochs, stage.method) for stage in method.stages(Budget(epochs=3, finetune_epochs=1))] == [
        ("train", 3, None),
        ("finetune", 1, method),
    ]
    assert method_label(method) == "block_removal(blocks=2, unit=ssm)"
    assert method_label(create_method("block_removal", ratio=0.5)) == "block_removal(ratio=0.5)"
