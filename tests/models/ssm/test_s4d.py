"""S4D against its recurrence."""

import math

import pytest
import torch
from torch import Tensor

from models.configs import S4Config
from models.layers import weight_decay_groups
from models.ssm.s4d import S4D, initial_states


def s4d_by_recurrence(layer: S4D, u: Tensor) -> Tensor:
    """y, (B, L, H), by x[l] = A' x[l-1] + B' u[l], one position at a time."""
    rate, weight = layer.discrete()
    state, outputs = torch.zeros(u.shape[0], *rate.shape, dtype=rate.dtype), []
    for position in u.unbind(1):
        state = torch.exp(rate) * state + position.unsqueeze(-1)
        outputs.append(2 * (weight * state).sum(-1).real + position * layer.D)
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


def test_a_reversed_layer_is_that_of_the_flipped_sequence() -> None:
    layer, u = S4D(4, S4Config()), torch.randn(2, 9, 4)
    torch.testing.assert_close(layer(u, reverse=True), layer(u.flip(1)).flip(1))


def test_bf16_is_computed_in_fp32() -> None:
    layer, u = S4D(4, S4Config()), torch.randn(2, 9, 4)
    y = layer.bfloat16()(u.bfloat16())
    assert y.dtype == torch.bfloat16 and torch.isfinite(y).all()
    assert (y.float() - layer(u)).norm() / y.float().norm() < 0.02


def test_rates_and_steps_take_no_weight_decay() -> None:
    assert weight_decay_groups(S4D(4, S4Config()), decay_ssm=True)[0] == ["C"]
