"""The C++ scan, for every instruction set built here: against a loop over numbers and against the reference."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.ssm import cpu, kernel
from models.ssm.scan import selective_scan
from tests.support.scans import gradients, problem, scan_by_numbers


@pytest.fixture(params=kernel.runnable_variants())
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The C++ backend, built for each instruction set that this CPU has."""
    monkeypatch.setattr(cpu, "load_kernel", lambda: kernel.load_kernel(request.param))
    yield request.param


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("channels", "length", "states", "groups"), [(6, 70, 3, 3), (37, 33, 5, 0), (16, 64, 16, 1), (4, 20, 19, 2), (1, 1, 1, 0)])
def test_the_kernel_equals_a_loop_over_numbers(variant: str, channels: int, length: int, states: int, groups: int, reverse: bool) -> None:
    inputs = problem(1, channels, length, states, groups)
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, reverse=reverse, backend="cpu")
    torch.testing.assert_close((y, last), scan_by_numbers(**inputs, delta_softplus=True, reverse=reverse), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_the_kernel_pass_gradcheck(variant: str, reverse: bool) -> None:
    inputs = {name: tensor.requires_grad_() for name, tensor in problem(2, 3, 5, 2, 1).items()}

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return selective_scan(*tensors, delta_softplus=True, return_last_state=True, reverse=reverse, backend="cpu")

    assert torch.autograd.gradcheck(scan, tuple(inputs.values()))


@pytest.mark.parametrize("states", [6, 19])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 5e-6), (torch.bfloat16, 2e-2)])
def test_narrow_types_stay_close_to_fp64(variant: str, dtype: torch.dtype, limit: float, channels_last: bool, states: int) -> None:
    narrow = problem(2, 40, 75, states, dtype=dtype, channels_last=channels_last)
    got, want = gradients(narrow, backend="cpu"), gradients({name: tensor.double() for name, tensor in narrow.items()}, backend="reference")
    assert got["y"].dtype == dtype and got["last"].dtype == torch.float32
    for name, tensor in want.items():
        assert (got[name].double() - tensor).norm() / tensor.norm() < limit, name


def test_results_are_equal_to_the_bit_for_any_number_of_threads_and_run() -> None:
    inputs, threads = problem(2, 200, 50, 16, dtype=torch.float32), torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            runs.append(gradients(inputs, backend="cpu"))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(torch.equal(run[name], tensor) for name, tensor in runs[0].items())


@settings(max_examples=25)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 12), st.integers(1, 70), st.integers(1, 9), st.booleans(), st.booleans(),
    st.sampled_from([1e-6, 1.0, 1e3]), st.sampled_from([1e-6, 1.0, 1e3]),
)  # fmt: skip
def test_any_shape_stride_and_extreme_rate_agrees_with_the_reference(
    batch: int, groups: int, group_channels: int, length: int, states: int, channels_last: bool, reverse: bool, delta_scale: float, rate_scale: float
) -> None:
    inputs = problem(batch, groups * group_channels, length, states, groups, torch.float32, channels_last, seed=length)
    inputs["delta"], inputs["A"] = inputs["delta"] * delta_scale, inputs["A"] * rate_scale
    got, want = gradients(inputs, backend="cpu", reverse=reverse), gradients(inputs, backend="reference", reverse=reverse)
    for name, tensor in want.items():
        assert torch.isfinite(got[name]).all(), name
        assert (got[name] - tensor).norm() <= 1e-4 * tensor.norm() + 1e-6, name


def test_steps_and_gates_far_from_zero_agree_with_the_reference(variant: str) -> None:
    inputs = problem(1, 20, 18, 2, dtype=torch.float32)
    inputs["delta"], inputs["z"] = torch.linspace(-300, 300, 360).reshape(1, 20, 18), torch.linspace(-300, 300, 360).flip(0).reshape(1, 20, 18)
    got, want = gradients(inputs, backend="cpu"), gradients(inputs, backend="reference")
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_an_infinite_gate_and_a_step_of_minus_infinity_are_handed_on(variant: str) -> None:
    inputs = problem(1, 20, 18, 2, dtype=torch.float32)
    inputs["z"][0, 1, 3], inputs["z"][0, 5, 4], inputs["delta"][0, 2, 3] = float("inf"), float("-inf"), float("-inf")
    got, want = (selective_scan(**inputs, delta_softplus=True, backend=backend) for backend in ("cpu", "reference"))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_nan_is_handed_on(variant: str) -> None:
    inputs = problem(1, 20, 40, 4, dtype=torch.float32)
    inputs["delta"][0, 3, 10] = float("nan")
    y = selective_scan(**inputs, delta_softplus=True, backend="cpu")
    assert y[0, 3, 10:].isnan().all() and not y[0, 3, :10].isnan().any() and not y[0, 4].isnan().any()


def test_the_operators_keep_torch_s_rules() -> None:
    inputs = problem(1, 4, 6, 2, 1, dtype=torch.float32)
    arguments = (*(tensor.requires_grad_() for tensor in inputs.values()), True, False, True)
    torch.library.opcheck(cpu._forward, arguments)


def test_a_missing_kernel_says_how_to_build_it_and_what_else_to_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise kernel.KernelMissing

    monkeypatch.setattr(cpu, "load_kernel", missing)
    with pytest.raises(kernel.KernelMissing, match="pip install --no-build-isolation -e .*scan: reference"):
        selective_scan(**problem(1, 2, 3, 1))


def test_half_precision_is_refused_by_the_kernel() -> None:
    inputs = {name: tensor.half() for name, tensor in problem(1, 2, 3, 1).items()}
    with pytest.raises(ValueError, match="fp32, bf16 and fp64, not torch.float16"):
        selective_scan(**inputs, backend="cpu")


@pytest.mark.parametrize("length", [1, 5])
def test_softplus_and_its_slope_have_fp32s_precision(variant: str, length: int) -> None:
    """Without decay (A = 0) and with u = B = C = 1, y is the running sum of softplus(delta)."""
    delta = torch.cat((torch.linspace(-20, 20, 4001), torch.linspace(-0.01, 0.01, 99)))[None, :, None].repeat(1, 1, length)
    channels = delta.shape[1]
    ones = {"u": torch.ones_like(delta), "A": torch.zeros(channels, 1), "B": torch.ones(1, 1, length), "C": torch.ones(1, 1, length)}
    leaf = delta.clone().requires_grad_()
    y = selective_scan(delta=leaf, **ones, delta_softplus=True, backend="cpu")
    y[..., -1].sum().backward()
    exact = torch.log1p(delta.double().exp())
    assert leaf.grad is not None
    assert float(((y.detach().double() - exact.cumsum(2)) / exact.cumsum(2)).abs().max()) < 3e-7 * length
    assert float(((leaf.grad.double() - delta.double().sigmoid()) / delta.double().sigmoid()).abs().max()) < 5e-7
