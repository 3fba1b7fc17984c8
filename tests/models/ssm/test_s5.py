"""S5 against its recurrence."""

import pytest
import torch
from torch import Tensor

from models.configs import S5Config
from models.layers import weight_decay_groups
from models.ssm.s5 import S5, associative_scan, hippo_normal


def s5_by_recurrence(layer: S5, u: Tensor) -> Tensor:
    """y, (B, L, H), one position at a time."""
    rates, inputs = layer.discrete()
    state, outputs = torch.zeros(u.shape[0], len(rates), dtype=rates.dtype), []
    for position in u.unbind(1):
        state = rates * state + position.to(rates.dtype) @ inputs.T
        outputs.append(2 * (state @ torch.view_as_complex(layer.C).T).real + position * layer.D)
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_the_scan_of_s5_equals_its_recurrence(length: int) -> None:
    torch.manual_seed(0)
    layer, u = S5(5, S5Config(d_state=16, blocks=2)).double(), torch.randn(2, length, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(u), s5_by_recurrence(layer, u))


def test_the_associative_scan_equals_a_loop() -> None:
    torch.manual_seed(0)
    rates, drives = (torch.randn(2, 13, 3, dtype=torch.complex128) for _ in range(2))
    state, states = torch.zeros(2, 3, dtype=torch.complex128), []
    for at in range(13):
        state = rates[:, at] * state + drives[:, at]
        states.append(state)
    torch.testing.assert_close(associative_scan(rates, drives), torch.stack(states, dim=1))


def test_s5_starts_from_the_normal_part_of_hippo() -> None:
    eigenvalues, vectors = hippo_normal(8)
    n = torch.arange(8, dtype=torch.float64)
    root = torch.sqrt(2 * n + 1)
    normal = -(torch.tril(torch.outer(root, root)) - torch.diag(n)) + torch.outer(torch.sqrt(n + 0.5), torch.sqrt(n + 0.5))
    torch.testing.assert_close(normal.to(vectors.dtype) @ vectors, vectors * eigenvalues)
    assert (eigenvalues.imag > 0).all()


def test_a_reversed_layer_is_that_of_the_flipped_sequence() -> None:
    layer, u = S5(4, S5Config(d_state=8)), torch.randn(2, 9, 4)
    torch.testing.assert_close(layer(u, reverse=True), layer(u.flip(1)).flip(1))


def test_bf16_is_computed_in_fp32() -> None:
    layer, u = S5(4, S5Config(d_state=8)), torch.randn(2, 9, 4)
    y = layer.bfloat16()(u.bfloat16())
    assert y.dtype == torch.bfloat16 and torch.isfinite(y).all()
    assert (y.float() - layer(u)).norm() / y.float().norm() < 0.02


def test_rates_and_steps_take_no_weight_decay() -> None:
    assert weight_decay_groups(S5(4, S5Config()), decay_ssm=True)[0] == ["B", "C"]
