"""The Triton scan, compiled on a GPU or in Triton's interpreter: against the float64 reference, at mamba-ssm's own tolerances in narrow types."""

import pytest
import torch

from models.ssm.launch import CHUNK
from models.ssm.scan import selective_scan
from tests.support.scans import gradients, problem, scan_by_numbers
from tests.support.triton_device import DEVICE, needs_triton

pytestmark = needs_triton


def on_device(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inputs where the kernels run, with the same memory layout."""
    return {name: tensor.to(DEVICE) for name, tensor in inputs.items()}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("channels", "length", "states", "groups"), [(4, CHUNK + 6, 3, 1), (37, 5, 5, 0), (4, 6, 19, 2), (1, 1, 1, 0)])
def test_the_kernel_equals_a_loop_over_numbers(channels: int, length: int, states: int, groups: int, reverse: bool) -> None:
    inputs = problem(1, channels, length, states, groups)
    y, last = selective_scan(**on_device(inputs), delta_softplus=True, return_last_state=True, reverse=reverse, backend="triton")
    want = scan_by_numbers(**inputs, delta_softplus=True, reverse=reverse)
    torch.testing.assert_close((y.cpu(), last.cpu()), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("batch", "channels", "length", "states", "groups"), [(1, 4, 2 * CHUNK + 5, 3, 1), (2, 37, 5, 5, 0), (1, 4, 6, 19, 2), (1, 1, 1, 1, 0)]
)
def test_its_gradients_equal_the_reference_s(batch: int, channels: int, length: int, states: int, groups: int, reverse: bool) -> None:
    inputs = problem(batch, channels, length, states, groups, channels_last=length == 5)
    got = gradients(on_device(inputs), backend="triton", reverse=reverse)
    for name, tensor in gradients(inputs, backend="reference", reverse=reverse).items():
        torch.testing.assert_close(got[name].cpu(), tensor, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("left_out", [("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")])
def test_optional_inputs_may_be_left_out(left_out: tuple[str, ...]) -> None:
    inputs = {name: tensor.requires_grad_() for name, tensor in problem(1, 5, 4, 2).items() if name not in left_out}
    results = []
    for backend in ("triton", "reference"):
        y = selective_scan(**on_device(inputs), backend=backend)
        results.append((y, torch.autograd.grad(y.square().sum(), list(inputs.values()))))
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 5e-6), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
def test_narrow_types_stay_close_to_fp64(dtype: torch.dtype, limit: float, channels_last: bool) -> None:
    narrow = problem(1, 40, 15, 6, dtype=dtype, channels_last=channels_last)
    got = gradients(on_device(narrow), backend="triton")
    want = gradients({name: tensor.double() for name, tensor in narrow.items()}, backend="reference")
    assert got["y"].dtype == dtype and got["last"].dtype == torch.float32
    for name, tensor in want.items():
        assert (got[name].cpu().double() - tensor).norm() / tensor.norm() < limit, name


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float32, 6e-4, 2e-3), (torch.bfloat16, 3e-2, 5e-2), (torch.float16, 3e-3, 5e-3)])
def test_it_is_within_mamba_ssm_s_own_tolerances(dtype: torch.dtype, rtol: float, atol: float) -> None:
    inputs = problem(1, 8, 36, 8, 1, dtype)
    inputs["A"], inputs["delta"] = -torch.rand_like(inputs["A"]) / 2, inputs["delta"] / 2  # as upstream draws them
    got, want = gradients(on_device(inputs), backend="triton", last=False), gradients(inputs, backend="reference", last=False)
    for name, tensor in want.items():
        scale = 1 if name == "y" else 10  # gradients sum over batch and length
        torch.testing.assert_close(
            got[name].cpu().float(), tensor.float(), rtol=rtol * scale, atol=atol * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_run_repeats_to_the_bit() -> None:
    inputs = on_device(problem(1, 40, 5, 4, dtype=torch.float32))
    first, second = (gradients(inputs, backend="triton") for _ in range(2))
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_steps_and_gates_far_from_zero_agree_with_the_reference() -> None:
    inputs = problem(1, 20, 18, 2, dtype=torch.float32)
    inputs["delta"], inputs["z"] = torch.linspace(-300, 300, 360).reshape(1, 20, 18), torch.linspace(-300, 300, 360).flip(0).reshape(1, 20, 18)
    got, want = gradients(on_device(inputs), backend="triton"), gradients(inputs, backend="reference")
    torch.testing.assert_close({name: tensor.cpu() for name, tensor in got.items()}, want, rtol=1e-4, atol=1e-4)


def test_infinity_and_nan_are_handed_on() -> None:
    inputs = problem(1, 20, 18, 2, dtype=torch.float32)
    inputs["z"][0, 1, 3], inputs["z"][0, 5, 4] = float("inf"), float("-inf")
    inputs["delta"][0, 2, 3], inputs["delta"][0, 3, 10] = float("-inf"), float("nan")
    got, want = (selective_scan(**on_device(inputs), delta_softplus=True, backend=backend) for backend in ("triton", "reference"))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_softplus_and_its_slope_have_fp32s_precision() -> None:
    """Without decay (A = 0) and with u = B = C = 1, y is softplus(delta)."""
    delta = torch.cat((torch.linspace(-20, 20, 401), torch.linspace(-0.01, 0.01, 47)))[None, :, None].to(DEVICE)
    channels, leaf = delta.shape[1], delta.clone().requires_grad_()
    ones = {"u": torch.ones_like(delta), "A": delta.new_zeros(channels, 1), "B": delta.new_ones(1, 1, 1), "C": delta.new_ones(1, 1, 1)}
    y = selective_scan(delta=leaf, **ones, delta_softplus=True, backend="triton")
    y.sum().backward()
    exact = torch.log1p(delta.double().exp())
    assert leaf.grad is not None
    assert float(((y.detach().double() - exact) / exact).abs().max()) < 5e-7
    assert float(((leaf.grad.double() - delta.double().sigmoid()) / delta.double().sigmoid()).abs().max()) < 1e-6
