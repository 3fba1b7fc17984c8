"""Checkpoint files in the official wrappers."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import nn

from models.registry import create_model, effective_options, model_label
from tests.support.golden import filled


def micro(**options: object) -> nn.Module:
    return create_model("vim_micro", num_classes=10, depth=1, **options)


@pytest.mark.parametrize(("wrapper", "prefix"), [("model", ""), ("state_dict", ""), (None, ""), ("state_dict", "module."), ("model", "encoder.")])
def test_every_official_wrapper_is_read(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    weights = {prefix + name: tensor for name, tensor in filled(micro()).state_dict().items()}
    torch.save({wrapper: weights, "epoch": 3, "args": argparse.Namespace(lr=1e-3)} if wrapper else weights, tmp_path / "official.pth")
    loaded = micro(pretrained=tmp_path / "official.pth").state_dict()
    assert all(torch.equal(loaded[name.removeprefix(prefix)], tensor) for name, tensor in weights.items())


def test_a_checkpoint_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"model": micro().state_dict()}, tmp_path / "official.pth")
    with pytest.raises(ValueError, match=r"official.pth does not fit the model: .*A_log is \(128, 8\), the model has \(128, 4\)"):
        micro(d_state=4, pretrained=tmp_path / "official.pth")
    with pytest.raises(ValueError, match="missing layers.0.se.reduce.weight"):
        micro(se={}, pretrained=tmp_path / "official.pth")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Path("x")}, tmp_path / "pickled.pth")
    with pytest.raises(ValueError, match="pickled.pth is no checkpoint"):
        micro(pretrained=tmp_path / "pickled.pth")


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        micro(pretrained=tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="there is no file .*absent.pth"):
        micro(pretrained=tmp_path / "absent.pth")


def test_a_head_of_other_classes_stays_fresh(tmp_path: Path) -> None:
    torch.save({"model": filled(create_model("vim_micro", num_classes=1000, depth=1)).state_dict()}, tmp_path / "official.pth")
    model = micro(pretrained=tmp_path / "official.pth")
    assert model.head.weight.shape == (10, 64) and not model.head.bias.any()
    assert torch.equal(model.norm_f.weight, filled(micro()).norm_f.weight)


def test_a_grid_may_name_a_checkpoint() -> None:
    assert effective_options("vim_tiny", {"pretrained": "/data/vim_t.pth"}) == {"pretrained": "/data/vim_t.pth"}
    assert model_label("vim_tiny", {"pretrained": "/data/vim_t.pth"}) == "vim_tiny(pretrained=vim_t.pth)"


def test_a_checkpoint_is_checked_without_memory_for_the_model(tmp_path: Path) -> None:
    torch.save({"model": filled(micro()).state_dict()}, tmp_path / "official.pth")
    with torch.device("meta"):  # as the launcher does
        micro(pretrained=tmp_path / "official.pth")
        with pytest.raises(ValueError, match="does not fit the model"):
            micro(d_state=4, pretrained=tmp_path / "official.pth")
