"""The selective scan: every backend that runs here against a loop over numbers, and its gradients, shapes, threads and errors."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.ssm import cpu, kernel
from models.ssm.backends import scan_backend_used
from models.ssm.scan import selective_scan


def scan_by_numbers(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """(y, last state) in fp64, one scalar equation at a time: the independent reference."""
    u_, delta_, A_, B_, C_ = (t.detach().double().numpy() for t in (u, delta, A, B, C))
    B_, C_ = (t if t.ndim == 4 else t[:, None] for t in (B_, C_))
    (batch, channels, length), states = u_.shape, A_.shape[1]
    y, last = np.zeros_like(u_), np.zeros((batch, channels, states))
    for b in range(batch):
        for d in range(channels):
            g, h = d // (channels // B_.shape[1]), np.zeros(states)
            for l in range(length)[:: -1 if reverse else 1]:  # noqa: E741
                step = delta_[b, d, l] + (0 if delta_bias is None else float(delta_bias[d]))
                step = np.log1p(np.exp(step)) if delta_softplus else step
                h = np.exp(step * A_[d]) * h + step * B_[b, g, :, l] * u_[b, d, l]
                y[b, d, l] = C_[b, g, :, l] @ h + (0 if D is None else float(D[d])) * u_[b, d, l]
                if z is not None:
                    gate = float(z[b, d, l])
                    y[b, d, l] *= gate / (1 + np.exp(-gate))
            last[b, d] = h
    return torch.from_numpy(y), torch.from_numpy(last)


def problem(
    batch: int,
    channels: int,
    length: int,
    states: int,
    groups: int = 0,
    dtype: torch.dtype = torch.float64,
    channels_last: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Inputs of a scan, all of them; groups 0: B and C without a group dimension."""
    torch.manual_seed(seed)
    wide = torch.promote_types(dtype, torch.float32)

    def sequence() -> Tensor:
        x = torch.randn(batch, channels, length, dtype=torch.float64).to(dtype)
        return x.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else x

    shared = (batch, groups, states, length) if groups else (batch, states, length)
    return {
        "u": sequence(), "delta": sequence(), "A": -torch.rand(channels, states, dtype=torch.float64).mul(3).exp().to(wide),
        "B": torch.randn(shared, dtype=torch.float64).to(dtype), "C": torch.randn(shared, dtype=torch.float64).to(dtype),
        "D": torch.randn(channels, dtype=wide), "z": sequence(), "delta_bias": torch.randn(channels, dtype=wide),
    }  # fmt: skip


def gradients(inputs: dict[str, Tensor], *, last: bool = True, **options: Any) -> dict[str, Tensor]:
    """Outputs and the gradients of all inputs under fixed random weights of the outputs, the last state only if `last`."""
    leaves = {name: tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for name, tensor in inputs.items()}
    y, state = selective_scan(**leaves, delta_softplus=True, return_last_state=True, **options)
    torch.manual_seed(7)
    outputs = {"y": y, "last": state} if last else {"y": y}
    weights = {name: torch.randn(output.shape, dtype=torch.float64).to(y.device) for name, output in outputs.items()}
    sum((output.double() * weights[name]).sum() for name, output in outputs.items()).backward()
    return {name: output.detach() for name, output in outputs.items()} | {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


@pytest.fixture(params=kernel.runnable_variants())
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The C++ backend, built for each instruction set that this CPU has."""
    monkeypatch.setattr(cpu, "load_kernel", lambda: kernel.load_kernel(request.param))
    yield request.param


def test_the_kernel_is_built_here() -> None:
    assert kernel.runnable_variants(), f"the C++ scan is not built: {kernel.BUILD}"


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("groups", [0, 1, 3])
def test_the_reference_equals_a_loop_over_numbers(groups: int, reverse: bool) -> None:
    inputs = problem(2, 6, 7, 3, groups)
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, reverse=reverse, backend="reference")
    want = scan_by_numbers(**inputs, delta_softplus=True, reverse=reverse)
    torch.testing.assert_close((y, last), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("channels", "length", "states", "groups"), [(6, 70, 3, 3), (37, 33, 5, 0), (16, 64, 16, 1), (4, 20, 19, 2), (1, 1, 1, 0)])
def test_the_kernel_equals_a_loop_over_numbers(variant: str, channels: int, length: int, states: int, groups: int, reverse: bool) -> None:
    inputs = problem(1, channels, length, states, groups)
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, reverse=reverse, backend="cpu")
    torch.testing.assert_close((y, last), scan_by_numbers(**inputs, delta_softplus=True, reverse=reverse), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("left_out", [(), ("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")])
def test_optional_inputs_may_be_left_out(left_out: tuple[str, ...]) -> None:
    inputs = {name: tensor for name, tensor in problem(1, 5, 9, 2).items() if name not in left_out}
    inputs["delta"] = inputs["delta"].abs() / 10
    y, want = selective_scan(**inputs, backend="cpu"), scan_by_numbers(**inputs)[0]
    torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-12)


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


def test_a_reversed_scan_is_that_of_the_flipped_sequence() -> None:
    inputs = problem(2, 20, 45, 4, 2)
    flipped = {name: tensor.flip(-1) if tensor.ndim > 2 else tensor for name, tensor in inputs.items()}
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, reverse=True)
    y_flipped, last_flipped = selective_scan(**flipped, delta_softplus=True, return_last_state=True)
    torch.testing.assert_close((y, last), (y_flipped.flip(-1), last_flipped))


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


def test_the_scan_compiles_whole() -> None:
    inputs = {name: tensor.requires_grad_() for name, tensor in problem(1, 4, 6, 2, dtype=torch.float32).items()}

    def loss(u: Tensor) -> Tensor:
        return selective_scan(**{**inputs, "u": u * 2}, delta_softplus=True, reverse=True, backend="cpu").square().sum()

    u = inputs["u"]
    want = torch.autograd.grad(loss(u), u)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(u), u)
    torch.testing.assert_close(got, want)


def test_the_operators_keep_torch_s_rules() -> None:
    inputs = problem(1, 4, 6, 2, 1, dtype=torch.float32)
    arguments = (*(tensor.requires_grad_() for tensor in inputs.values()), True, False, True)
    torch.library.opcheck(cpu._forward, arguments)


def test_the_loss_of_only_the_last_state_has_gradients() -> None:
    inputs = {name: tensor.requires_grad_() for name, tensor in problem(1, 3, 5, 2).items()}
    grads = []
    for backend in ("cpu", "reference"):
        _, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
        grads.append(torch.autograd.grad(last.square().sum(), [inputs[name] for name in ("u", "delta", "A", "B", "delta_bias")]))
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [("delta", (1, 4, 5), r"delta must be \(1, 4, 6\)"), ("A", (4,), r"A must be real and \(D, N\)"), ("B", (1, 3, 6), r"B must be \(1, 2, 6\)"),
     ("C", (1, 3, 2, 6), r"C must be"), ("D", (5,), r"D must be \(4,\)"), ("z", (1, 4), "z must be"), ("u", (4, 6), r"u must be \(B, D, L\)")],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused_by_name(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        selective_scan(**problem(1, 4, 6, 2) | {name: torch.ones(shape, dtype=torch.float64)})


def test_channels_that_groups_do_not_divide_are_refused() -> None:
    shared = torch.zeros(1, 3, 2, 6)
    with pytest.raises(ValueError, match="4 channels cannot be split into 3 groups"):
        selective_scan(**problem(1, 4, 6, 2) | {"B": shared, "C": shared})


def test_a_missing_kernel_says_how_to_build_it_and_what_else_to_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise kernel.KernelMissing

    monkeypatch.setattr(cpu, "load_kernel", missing)
    with pytest.raises(kernel.KernelMissing, match="pip install --no-build-isolation -e .*scan: reference"):
        selective_scan(**problem(1, 2, 3, 1))


def test_backends_go_by_name_and_device() -> None:
    assert [scan_backend_used(device) for device in ("cpu", "cuda")] == ["cpu", "cuda"]
    assert scan_backend_used("cuda", "reference") == "reference"
    with pytest.raises(ValueError, match="does not take tensors on 'cpu'"):
        scan_backend_used("cpu", "cuda")
    with pytest.raises(ValueError, match="unknown scan backend 'gpu'; valid: auto, cpu, cuda, reference"):
        scan_backend_used("cpu", "gpu")


def test_half_precision_is_refused_by_the_kernel() -> None:
    inputs = {name: tensor.half() for name, tensor in problem(1, 2, 3, 1).items()}
    with pytest.raises(ValueError, match="fp32, bf16 and fp64, not torch.float16"):
        selective_scan(**inputs, backend="cpu")


def test_asking_for_large_pages_leaves_memory_as_it_is() -> None:
    memory = torch.arange(2_000_000)
    kernel.load_kernel().use_large_pages(memory, memory[:0])
    assert torch.equal(memory, torch.arange(2_000_000))


def test_a_kernel_of_another_version_says_how_to_build_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel.ctypes, "sizeof", lambda struct: 1)
    with pytest.raises(ImportError, match="built from another version of its source: install a C"):
        kernel.load_kernel.__wrapped__()
