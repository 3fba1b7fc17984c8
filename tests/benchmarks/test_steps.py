"""The peers of a training step compute what it computes."""

import pytest
import torch

from benchmarks.steps import SCANS, step, with_scan


@pytest.mark.parametrize("name", ["vim_micro", "mambavision_micro"])
def test_a_step_with_either_loop_is_the_step_with_the_kernel(name: str) -> None:
    grads = []
    for scan in SCANS:
        parts = with_scan(name, 2, scan, img_size=32)
        step(*parts)
        grads.append({key: parameter.grad for key, parameter in parts[0].named_parameters()})
    for others in grads[1:]:
        torch.testing.assert_close(others, grads[0], rtol=1e-3, atol=1e-4)
