"""The scan of exported graphs against a loop over numbers."""

import pytest
import torch

from models.ssm.doubling import scan_by_doubling
from models.ssm.scan import selective_scan
from tests.support.scans import problem, scan_by_numbers


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("groups", "length"), [(1, 1), (1, 7), (3, 8), (6, 9)])
def test_it_equals_a_loop_over_numbers(groups: int, length: int, reverse: bool) -> None:
    inputs = problem(2, 6, length, 3, groups)
    got = scan_by_doubling(**inputs, delta_softplus=True, reverse=reverse)
    torch.testing.assert_close(got, scan_by_numbers(**inputs, delta_softplus=True, reverse=reverse), rtol=1e-10, atol=1e-12)


def test_optional_inputs_may_be_left_out() -> None:
    inputs = problem(1, 5, 9, 2, 1) | {"D": None, "z": None, "delta_bias": None}
    inputs["delta"] = inputs["delta"].abs() / 10
    got = scan_by_doubling(**inputs, delta_softplus=False, reverse=False)
    torch.testing.assert_close(got, scan_by_numbers(**inputs), rtol=1e-10, atol=1e-12)


def test_half_precision_is_computed_in_fp32_and_given_back_in_its_own() -> None:
    inputs = problem(1, 4, 6, 2, 1, dtype=torch.bfloat16)
    y, last = scan_by_doubling(**inputs, delta_softplus=True, reverse=False)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.slow
def test_the_reference_is_exported_as_it_with_a_graph_that_hardly_grows_with_the_length() -> None:
    class Scan(torch.nn.Module):
        def forward(self, u: torch.Tensor) -> torch.Tensor:
            return selective_scan(u, **{name: value for name, value in inputs.items() if name != "u"}, delta_softplus=True, backend="reference")

    nodes = []
    for length in (8, 64):
        inputs = problem(1, 2, length, 2, dtype=torch.float32)
        program = torch.export.export(Scan(), (inputs["u"],))
        torch.testing.assert_close(program.module()(inputs["u"]), Scan()(inputs["u"]))
        nodes.append(len(program.graph.nodes))
    assert nodes[1] < 2 * nodes[0]
