"""timm builds our models, and loads the weights that we save."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.registry import MODELS, create_model
from models.torchvision_shim import load_timm

CODE = """
import sys
import torch
from safetensors.torch import load_file
import models.timm_names
import timm
from models.registry import MODELS, create_model

name, path = sys.argv[1:]
listed = timm.list_models("vssm_bench_*")
assert set(listed) == {"vssm_bench_" + row for row in MODELS}, listed
network = timm.create_model("vssm_bench_" + name, num_classes=3, img_size=32, checkpoint_path=path).eval()
print(timm.data.resolve_data_config(model=network)["input_size"])
theirs = create_model(name, 3, 32)
theirs.load_state_dict(load_file(path))
torch.manual_seed(0)
images = torch.randn(2, 3, 32, 32)
assert torch.equal(network(images), theirs.eval()(images))
for wrong, kind in (({"dpth": 3}, ValueError), ({"pretrained": True}, ValueError), ({"in_chans": 1}, ValueError)):
    try:
        timm.create_model("vssm_bench_" + name, **wrong)
    except kind:
        continue
    raise AssertionError(wrong)
try:
    timm.create_model("vssm_bench_" + name, num_classes=4, checkpoint_path=path)
except RuntimeError as error:
    print("strict:", "size mismatch" in str(error))
"""


@pytest.mark.slow  # in a process of its own: the names would stay in timm's registry
def test_timm_builds_ours_and_loads_what_we_save(tmp_path: Path) -> None:
    network = create_model("mambavision_micro", 3, 32)
    for parameter in network.parameters():
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    command = [sys.executable, "-c", CODE, "mambavision_micro", str(tmp_path / "model.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["(3, 32, 32)", "strict: True"]


def test_timm_itself_takes_no_name_with_a_slash() -> None:
    assert "vim_tiny" in MODELS
    with pytest.raises(ValueError, match="has no source prefix but looks like a Hugging Face Hub repo id"):
        load_timm().create_model("vssm_bench/vim_tiny")
