"""S4D and S5 against their recurrences."""

import math

import pytest
import torch
from torch import Tensor

from models.configs import S4Config, S5Config
from models.layers import weight_decay_groups
from models.ssm.s4d import S4D, initial_states
from models.ssm.s5 import S5, associative_scan, hippo_normal


def s4d_by_recurrence(layer: S4D, u: Tensor) -> Tensor:
    """y, (B, L, H), by x[l] = A' x[l-1] + B' u[l], one position at a time."""
    rate, weight = layer.discrete()
    state, outputs = torch.zeros(u.shape[0], *rate.shape, dtype=rate.dtype), []
    for position in u.unbind(1):
        state = torch.exp(rate) * state + position.unsqueeze(-1)
        outputs.append(2 * (weight * state).sum(-1).real + position * layer.D)
    return torch.stack(outputs, dim=1)


def s5_by_recurrence(layer: S5, u: Tensor) -> Tensor:
    """y, (B, L, H), one position at a time."""
    rates, inputs = layer.discrete()
    state, outputs = torch.zeros(u.shape[0], len(rates), dtype=rates.dtype), []
    for position in u.unbind(1):
        state = rates * state + position.to(rates.dtype) @ inputs.T
        outputs.append(2 * (state @ torch.view_as_complex(layer.C).T).real + position * layer.D)
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("init", ["lin", "inv"])
@pytest.mark.parametrize("length", [1, 7, 64])
def test_the_convolution_of_s4d_equals_its_recurrence(init: str, length: int) -> None:
    torch.manual_seed(0)
    layer, u = S4D(6, S4Config(init=init)).double(), torch.randn(2, length, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(u), s4d_by_recurrence(layer, u))


def test_s4d_starts_at_the_published_states() -> None:
    torch.testing.assert_close(initial_states("lin", 3).imag, torch.tensor([0, math.pi, 2 * math.pi], dtype=torch.float64))
    torch.testing.assert_close(initial_states("inv", 3).imag, 6 / math.pi * torch.tensor([6 / 1 - 1, 6 / 3 - 1, 6 / 5 - 1], dtype=torch.float64))
    steps = torch.exp(S4D(4000, S4Config()).log_dt)
    assert 1e-3 <= steps.min() and steps.max() <= 0.1


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


@pytest.mark.parametrize("layer", [S4D(4, S4Config()), S5(4, S5Config(d_state=8))], ids=["s4d", "s5"])
def test_a_reversed_layer_is_that_of_the_flipped_sequence(layer: S4D | S5) -> None:
    u = torch.randn(2, 9, 4)
    torch.testing.assert_close(layer(u, reverse=True), layer(u.flip(1)).flip(1))


@pytest.mark.parametrize("layer", [S4D(4, S4Config()), S5(4, S5Config(d_state=8))], ids=["s4d", "s5"])
def test_bf16_is_computed_in_fp32(layer: S4D | S5) -> None:
    u = torch.randn(2, 9, 4)
    y = layer.bfloat16()(u.bfloat16())
    assert y.dtype == torch.bfloat16 and torch.isfinite(y).all()
    assert (y.float() - layer(u)).norm() / y.float().norm() < 0.02


def test_rates_and_steps_take_no_weight_decay() -> None:
    assert weight_decay_groups(S4D(4, S4Config()), decay_ssm=True)[0] == ["C"]
    assert weight_decay_groups(S5(4, S5Config()), decay_ssm=True)[0] == ["B", "C"]
