"""timm builds our models, and loads the weights that we save."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.registry import MODELS, create_model
from models.torchvision_shim import load_timm
from tests.support.processes import run_ranks


def build(folder: Path, name: str) -> None:
    """Run in a process of its own: the names would stay in timm's registry."""
    import models.timm_names  # noqa: F401

    timm = load_timm()

    path = folder / "model.safetensors"
    listed = timm.list_models("vssm_bench_*")
    assert set(listed) == {"vssm_bench_" + row for row in MODELS}, listed
    network = timm.create_model("vssm_bench_" + name, num_classes=3, img_size=32, checkpoint_path=path).eval()
    assert timm.data.resolve_data_config(model=network)["input_size"] == (3, 32, 32)
    theirs = create_model(name, 3, 32)
    theirs.load_state_dict(load_file(path))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(images), theirs.eval()(images))
    for wrong in ({"dpth": 3}, {"pretrained": True}, {"in_chans": 1}):
        with pytest.raises(ValueError):
            timm.create_model("vssm_bench_" + name, **wrong)
    with pytest.raises(RuntimeError, match="size mismatch"):
        timm.create_model("vssm_bench_" + name, num_classes=4, checkpoint_path=path)


@pytest.mark.slow
def test_timm_builds_ours_and_loads_what_we_save(tmp_path: Path) -> None:
    network = create_model("mambavision_micro", 3, 32)
    for parameter in network.parameters():
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    run_ranks("tests.models.test_timm_names:build", 1, tmp_path, name="mambavision_micro")


def test_timm_itself_takes_no_name_with_a_slash() -> None:
    assert "vim_tiny" in MODELS
    with pytest.raises(ValueError, match="has no source prefix but looks like a Hugging Face Hub repo id"):
        load_timm().create_model("vssm_bench/vim_tiny")
