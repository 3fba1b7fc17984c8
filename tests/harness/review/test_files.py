"""Rules on the files of a cell: each kind of forgery is found by its own rule."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs.experiment.files import sha256_of
from tests.support.forgeries import Falsify, broken, cells, edit, forget, rewrite

pytestmark = pytest.mark.slow


def untouched(spec: dict[str, Any]) -> bool:
    """True for a cell that no forgery here changes. The tests remove it: these rules load and count every cell, each by itself."""
    return spec["seed"] != 0 or spec["pruning"]["method"] not in ("dense", "magnitude")


def other_weights(run: Path) -> None:
    """The dense network in the place of a pruned one, digest included."""
    target = cells(run, "magnitude")[0]
    (target / "model.safetensors").unlink()
    shutil.copy(cells(run, "dense")[0] / "model.safetensors", target / "model.safetensors")
    edit(target, weights_sha256=sha256_of(target / "model.safetensors"))


def sparser_masks(run: Path) -> None:
    rewrite(cells(run, "magnitude")[0] / "masks.safetensors", lambda masks: [mask.zero_() for mask in masks.values()])


def narrower_masks(run: Path) -> None:
    """Masks that drop a half of what they dropped."""

    def halve(masks: dict[str, torch.Tensor]) -> None:
        for mask in masks.values():
            mask.view(-1)[: mask.numel() // 2] = 1

    rewrite(cells(run, "magnitude")[0] / "masks.safetensors", halve)


def moved_zero(run: Path) -> None:
    """Another weight is pruned in the place of one that was; sparsity stays."""
    cell = cells(run, "magnitude")[0]
    name = next(iter(load_file(cell / "masks.safetensors")))

    def swap(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(-1).copy_(tensors[name].view(-1).flip(0))

    rewrite(cell / "masks.safetensors", swap)
    rewrite(cell / "model.safetensors", swap)
    edit(cell, weights_sha256=sha256_of(cell / "model.safetensors"))


FORGERIES: dict[str, tuple[set[int], Falsify]] = {  # the rules that must be found broken, and how
    "a changed weight": (
        {5},
        lambda run: rewrite(cells(run, "dense")[0] / "model.safetensors", lambda tensors: tensors["head.bias"].add_(1)),
    ),
    "missing weights": ({5}, lambda run: (cells(run, "dense")[0] / "model.safetensors").unlink()),
    "the dense network as a pruned one": ({6}, other_weights),
    "masks that drop more than is zero": ({6}, sparser_masks),
    "masks that drop less than was said": ({6}, narrower_masks),
    "no masks": ({6}, lambda run: (cells(run, "magnitude")[0] / "masks.safetensors").unlink()),
    "a mask and its zero moved together, with the digest": ({5}, moved_zero),
    "a smaller file than it is": ({5}, lambda run: edit(cells(run, "dense")[0], metrics__file_bytes=lambda n: n // 2)),
    "the config of another cell": ({5}, lambda run: shutil.copy(cells(run, "dense")[0] / "config.json", cells(run, "magnitude")[0] / "config.json")),
    "fewer parameters": ({7}, lambda run: edit(cells(run, "dense")[0], metrics__params=lambda n: n - 1, metrics__params_dense=lambda n: n - 1)),
    "fewer multiply-adds": ({7}, lambda run: edit(cells(run, "magnitude")[0], metrics__macs_nonzero=lambda n: n // 2)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_is_found_by_its_rule(run: Path, forgery: str) -> None:
    rules, falsify = FORGERIES[forgery]
    forget(run, untouched)
    falsify(run)
    assert rules <= broken(run, rules=rules)
