"""What README shows is what is there."""

import re
from pathlib import Path

import torch

from harness.grid.read import read_grid
from models.__main__ import entries, row
from models.pruning.base import Budget, NetworkView
from models.registry import model_label

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_grid_is_the_quickstart() -> None:
    assert f"```yaml\n{(ROOT / 'grid.yaml').read_text().strip()}\n```" in README


def test_every_model_and_variant_has_its_line() -> None:
    named = re.findall(r"^\| (\S+) \| \d+ \| [\d,]+ \|", README, re.M)
    assert named == [model_label(name, options) for name, options in entries()]


def test_the_lines_of_small_models_are_what_python_m_models_prints() -> None:
    small = [row(name, options) for name, options in entries() if name == "vim_micro"]
    assert len(small) > 3 and all(line in README for line in small)


def test_the_pruning_method_works_as_it_is_printed() -> None:
    block = re.search(r'```python\n("""models/pruning/relative.py""".*?)```', README, re.S)
    assert block and block[1].count("\n") < 40
    module: dict[str, object] = {"__name__": "relative"}
    exec(block[1], module)
    method = module["Relative"](sparsity=0.5)  # type: ignore[operator]
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([10.0, 20.0])}
    read = weights.__getitem__
    pruner = NetworkView(names=("a", "b"), read_weight=read, read_gradient=read, input_norms={}.get, apply=lambda masks: None)
    method.begin(pruner)
    assert {name: mask.tolist() for name, mask in pruner.masks.items()} == {"a": [False, True], "b": [False, True]}
    assert [stage.name for stage in method.stages(Budget(epochs=1, finetune_epochs=1))] == ["train", "finetune"]


def test_the_profiles_that_it_names_are_there() -> None:
    for path in re.findall(r"`(?:cluster: )?(slurm/[\w./]+|analysis/[\w./]+|benchmarks/[\w./]+|models/[\w./]+\.py)`", README):
        assert (ROOT / path).exists(), path
    assert read_grid(ROOT / "grid.yaml").cells
