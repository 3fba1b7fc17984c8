"""The selective scan: the reference against a loop over numbers, and what holds for every backend."""

import pytest
import torch
from torch import Tensor

from models.ssm.scan import selective_scan
from tests.support.scans import problem, scan_by_numbers


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("groups", [0, 1, 3])
def test_the_reference_equals_a_loop_over_numbers(groups: int, reverse: bool) -> None:
    inputs = problem(2, 6, 7, 3, groups)
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, reverse=reverse, backend="reference")
    want = scan_by_numbers(**inputs, delta_softplus=True, reverse=reverse)
    torch.testing.assert_close((y, last), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("left_out", [(), ("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")])
def test_optional_inputs_may_be_left_out(left_out: tuple[str, ...]) -> None:
    inputs = {name: tensor for name, tensor in problem(1, 5, 9, 2).items() if name not in left_out}
    inputs["delta"] = inputs["delta"].abs() / 10
    y, want = selective_scan(**inputs, backend="cpu"), scan_by_numbers(**inputs)[0]
    torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-12)


def test_a_reversed_scan_is_that_of_the_flipped_sequence() -> None:
    inputs = problem(2, 20, 45, 4, 2)
    flipped = {name: tensor.flip(-1) if tensor.ndim > 2 else tensor for name, tensor in inputs.items()}
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, reverse=True)
    y_flipped, last_flipped = selective_scan(**flipped, delta_softplus=True, return_last_state=True)
    torch.testing.assert_close((y, last), (y_flipped.flip(-1), last_flipped))


def test_the_scan_compiles_whole() -> None:
    inputs = {name: tensor.requires_grad_() for name, tensor in problem(1, 4, 6, 2, dtype=torch.float32).items()}

    def loss(u: Tensor) -> Tensor:
        return selective_scan(**{**inputs, "u": u * 2}, delta_softplus=True, reverse=True, backend="cpu").square().sum()

    u = inputs["u"]
    want = torch.autograd.grad(loss(u), u)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(u), u)
    torch.testing.assert_close(got, want)


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
