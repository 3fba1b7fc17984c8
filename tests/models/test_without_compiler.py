"""Networks on the meta device import no compiler; with one, its own functions are used as torch would."""

import subprocess
import sys

import pytest

from models.without_compiler import start_meta_device

BUILDS = """
import sys
import torch
from models.registry import create_model
from models.without_compiler import start_meta_device
start_meta_device()
with torch.device("meta"):
    shapes = [tuple(weight.shape) for name in {names} for weight in create_model(name).state_dict().values()]
    half = torch.arange(4).exp()
print("torch._dynamo" in sys.modules, len(shapes) > 100, half.device.type, half.dtype)
import torch._dynamo
print(torch.empty(4, device="meta").exp().shape, torch.compile(lambda x: x.exp() + 1, backend="eager", fullgraph=True)(torch.zeros(2)).tolist())
"""


def test_networks_are_built_for_the_meta_device_without_the_compiler_and_then_with_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUILDS.format(names=["vim_micro", "mambavision_micro", "vmamba_micro", "vssd_micro_32"])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["False True meta torch.float32", "torch.Size([4]) [2.0, 2.0]"]


def test_a_torch_that_names_its_parts_otherwise_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("torch._compile._disable_dynamo")
    start_meta_device()
