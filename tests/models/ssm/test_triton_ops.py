"""The operators around the Triton kernels: torch's rules for operators, two sides in one launch, and what is refused."""

import pytest
import torch
from torch import Tensor

from models.ssm import triton_ops
from models.ssm.conv import conv1d_silu
from models.ssm.scan import selective_scan
from tests.models.ssm.test_conv import inputs as conv_inputs
from tests.support.scans import problem
from tests.support.triton_device import DEVICE, needs_triton


@needs_triton
@pytest.mark.parametrize("groups", [1, 2])
def test_two_sides_in_one_launch_equal_a_scan_ahead_and_a_scan_back(groups: int) -> None:
    ahead, back = (problem(2, 6, 9, 3, groups, channels_last=True, seed=seed) for seed in (0, 1))
    back["z"] = ahead["z"]
    leaves = {(side, name): tensor.to(DEVICE).requires_grad_() for side, part in enumerate((ahead, back)) for name, tensor in part.items()}
    leaves[1, "z"] = leaves[0, "z"]
    both = {name: [leaves[side, name] for side in (0, 1)] for name in ahead}
    stacked = {name: torch.stack(both[name]) for name in ("A", "D", "delta_bias")}
    y, last = triton_ops.scan_sides(
        both["u"], both["delta"], stacked["A"], both["B"], both["C"], stacked["D"], leaves[0, "z"], stacked["delta_bias"], True
    )
    apart = [
        selective_scan(
            **{name: leaves[side, name] for name in ahead}, delta_softplus=True, return_last_state=True, reverse=side == 1, backend="reference"
        )
        for side in (0, 1)
    ]
    torch.testing.assert_close((y, last), tuple(torch.stack(parts) for parts in zip(*apart, strict=True)))
    weights, unique = torch.randn_like(y), list({id(leaf): leaf for leaf in leaves.values()}.values())
    got = torch.autograd.grad((y * weights).sum() + last.square().sum(), unique)
    want = torch.autograd.grad(sum((apart[side][0] * weights[side]).sum() + apart[side][1].square().sum() for side in (0, 1)), unique)
    torch.testing.assert_close(got, want)


@needs_triton
def test_sides_of_different_strides_are_made_alike() -> None:
    one_way, other_way = torch.randn(2, 3, 4), torch.randn(2, 4, 3).transpose(1, 2)
    assert [tensor.stride() for tensor in triton_ops.alike([one_way, other_way])] == [(12, 4, 1)] * 2
    assert triton_ops.alike([other_way, other_way])[0] is other_way


@needs_triton
@pytest.mark.parametrize("left_out", [(), ("D", "z", "delta_bias")])
def test_the_operators_keep_torch_s_rules(left_out: tuple[str, ...]) -> None:
    parts = {
        name: None if name in left_out else tensor.to(DEVICE).requires_grad_() for name, tensor in problem(1, 4, 6, 2, 1, torch.float32, True).items()
    }
    A, D, bias = (None if parts[name] is None else parts[name].detach()[None].requires_grad_() for name in ("A", "D", "delta_bias"))
    arguments = ([parts["u"]], [parts["delta"]], A, [parts["B"]], [parts["C"]], D, parts["z"], bias, True, False, True)
    torch.library.opcheck(triton_ops._scan, arguments, test_utils=("test_schema", "test_autograd_registration", "test_faketensor"))
    x, weight, bias = (part.to(DEVICE).requires_grad_() for part in conv_inputs(4, 6, 3, torch.float32))
    torch.library.opcheck(triton_ops._conv, (x, weight, None if left_out else bias, 1, True))


@needs_triton
def test_scan_and_convolution_compile_whole() -> None:
    inputs = {name: tensor.to(DEVICE).requires_grad_() for name, tensor in problem(1, 4, 6, 2, dtype=torch.float32).items()}
    weight = torch.randn(4, 1, 3, device=DEVICE)

    def loss(u: Tensor) -> Tensor:
        u = conv1d_silu(u * 2, weight, None, left=2, backend="triton")
        return selective_scan(**{**inputs, "u": u}, delta_softplus=True, reverse=True, backend="triton").square().sum()

    u = inputs["u"]
    want = torch.autograd.grad(loss(u), u)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(u), u)
    torch.testing.assert_close(got, want)


@needs_triton
def test_the_loss_of_only_the_last_state_has_gradients() -> None:
    inputs = {name: tensor.to(DEVICE).requires_grad_() for name, tensor in problem(1, 3, 5, 2).items()}
    grads = []
    for backend in ("triton", "reference"):
        _, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
        grads.append(torch.autograd.grad(last.square().sum(), [inputs[name] for name in ("u", "delta", "A", "B", "delta_bias")]))
    torch.testing.assert_close(grads[0], grads[1])


def test_whole_numbers_are_refused() -> None:
    inputs = {name: tensor.to(torch.int32) for name, tensor in problem(1, 2, 3, 1, 1).items()}
    with pytest.raises(ValueError, match="fp32, bf16, fp16 and fp64, not torch.int32; ask for backend 'reference'"):
        triton_ops.scan_triton(**inputs, delta_softplus=True, reverse=False)
    with pytest.raises(ValueError, match="fp32, bf16, fp16 and fp64, not torch.int32"):
        triton_ops.conv_triton(inputs["u"], inputs["u"], None, 0, False)


def test_a_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'triton'")

    monkeypatch.setattr(triton_ops, "import_module", missing)
    with pytest.raises(ImportError, match=r"need Triton \(No module named 'triton'\); pip install triton"):
        triton_ops._kernels("scan")
