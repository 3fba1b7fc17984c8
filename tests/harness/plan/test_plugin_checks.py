"""A plug-in's network is tried at a launch."""

from pathlib import Path

import pytest

from harness.plan.plugin_checks import check_counts
from harness.plan.preflight import model_problems
from tests.support.grids import read
from tests.support.plugins import MODEL, own_tables, written  # noqa: F401

GRID = "name: g\nplugins: plugin.py\nmodels: [outside_net]\npruning: [dense, {method: magnitude, sparsity: 0.5}]\nseeds: [0]\n"
LINE = "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * img_size**2, config.width), nn.ReLU(), nn.Linear(config.width, num_classes))\n"
NET = """
    import torch

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, num_classes)

        def forward(self, images):
            {}

    return Net()
"""


def problems(folder: Path, monkeypatch: pytest.MonkeyPatch, forward: str, built: str = NET) -> list[str]:
    monkeypatch.chdir(folder)
    written(folder, MODEL.replace(LINE, built.format(forward)))
    grid = read(GRID)
    return model_problems(grid, grid.cells)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        ("return self.fc(images.mean((2, 3)))", None),
        ("return self.fc(images.mean((2, 3))) * float(images.sum() + 1)", None),
        (
            "return self.fc(images)",
            "its forward pass fails: RuntimeError: mat1 and mat2 shapes cannot be multiplied (192x32 and 3x10) (in plugin",
        ),
        ("return self.fcc(images)", "its forward pass fails: AttributeError: 'Net' object has no attribute 'fcc' (in plugin.py:25)"),
        (
            "return self.fc(torch.linalg.inv(images + torch.eye(images.shape[-1])).mean((2, 3)))",
            "its multiply-adds cannot be counted: ",
        ),
        (
            "return images.mean((2, 3))",
            "its forward pass gives a tensor of shape (2, 3): expected scores of shape (2, 10) for 2 images",
        ),
        ("return [self.fc(images.mean((2, 3)))]", "its forward pass gives a value of type list: expected scores of shape (2, 10)"),
    ],
)
def test_a_forward_pass_that_fails_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forward: str, message: str | None) -> None:
    told = problems(tmp_path, monkeypatch, forward)
    if message is None:
        assert told == []
    else:
        assert len(told) == 1 and told[0].startswith(f"grid.yaml:3: models[0]: model outside_net: {message}")


@pytest.mark.parametrize(
    ("built", "message"),
    [
        ("    return nn.Linear(3, num_clases)\n", "cannot be built: NameError: name 'num_clases' is not defined (in plugin.py:16)"),
        ("    return nn.Conv2d(3, 7, 3, groups=2)\n", "in_channels must be divisible by groups (plugin.py:16)"),
        ("    return None\n", "cannot be built: AttributeError: "),
    ],
)
def test_a_network_that_cannot_be_built_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str, message: str) -> None:
    (told,) = problems(tmp_path, monkeypatch, "", built)
    assert told.startswith(f"grid.yaml:3: models[0]: model outside_net: {message}")


def test_a_timm_network_with_an_operation_that_nobody_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="its multiply-adds cannot be counted: .*im2col"):
        check_counts("timm/volo_d1_224", {}, 32)
