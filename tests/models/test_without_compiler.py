"""Networks on the meta device and in training import no compiler; with one, its own functions are used as torch would."""

import subprocess
import sys

import pytest

from models.without_compiler import start_meta_device, start_optimizers

PROGRAM = """
import sys
import torch
from models.registry import create_model
from models.without_compiler import start_meta_device, start_optimizers, start_step
start_meta_device()
start_optimizers()

def trained(kind, **options):
    torch.manual_seed(0)
    model = create_model("vim_micro", 2, 8, depth=1, dim=8)
    optimizer = start_step(kind(model.parameters(), lr=0.1, **options))
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    for _ in range(3):
        model(torch.ones(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([weight.detach().flatten() for weight in model.parameters()]), seen

names = ["vim_micro", "mambavision_micro", "vmamba_micro", "vssd_micro_32"]
with torch.device("meta"):
    shapes = [tuple(weight.shape) for name in names for weight in create_model(name).state_dict().values()]
    half = torch.arange(4).exp()
print("torch._dynamo" in sys.modules, len(shapes) > 100, half.device.type, half.dtype)
kinds = [(torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9})]
before = [trained(kind, **options) for kind, options in kinds]
print("torch._dynamo" in sys.modules)

import torch._dynamo
print(torch.empty(4, device="meta").exp().shape, torch.compile(lambda x: x.exp() + 1, backend="eager", fullgraph=True)(torch.zeros(2)).tolist())
for (kind, options), (weights, seen) in zip(kinds, before):
    again, called = trained(kind, **options)
    print(torch.equal(weights, again), bool(weights.isfinite().all()), len(seen), seen == called)
model = create_model("vim_micro", 2, 8, depth=1, dim=8).eval()
with torch.no_grad():
    print(torch.allclose(torch.compile(model, backend="eager")(torch.ones(2, 3, 8, 8)), model(torch.ones(2, 3, 8, 8))))
"""


def test_networks_are_built_for_the_meta_device_and_trained_without_the_compiler_and_then_with_it() -> None:
    """To the same weights: `step` is torch's own once the compiler is there, and calls its hooks once, like the one before."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    without, with_it = ["False True meta torch.float32", "False"], ["torch.Size([4]) [2.0, 2.0]", *["True True 3 True"] * 2, "True"]
    assert done.stdout.splitlines() == without + with_it, done.stdout + done.stderr


def test_a_torch_that_names_its_parts_otherwise_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("torch._compile._disable_dynamo")
    start_meta_device()
    start_optimizers()
