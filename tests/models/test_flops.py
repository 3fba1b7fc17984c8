"""The table of models: counts from shapes alone, against published and independently counted figures."""

import pytest

from models.__main__ import measure


@pytest.mark.parametrize(
    ("name", "gmacs", "scan_gflops"),
    [
        # linear layers and convolutions of both directions; 24 blocks x 2 directions x 9 B L D N
        ("vim_tiny", 1.293, 24 * 2 * 9 * 197 * 384 * 16 / 1e9), ("vim_small", 4.851, 24 * 2 * 9 * 197 * 768 * 16 / 1e9),
        # linear layers and convolutions, and attention
        ("mambavision_t", 4.460 + 0.105, None), ("mambavision_s", 7.482 + 0.096, None), ("mambavision_l2", 37.503 + 0.377, None),
    ],
)  # fmt: skip
def test_multiply_adds_are_those_counted_on_the_official_code(name: str, gmacs: float, scan_gflops: float | None) -> None:
    cost = measure(name, {})
    assert cost.macs / 1e9 == pytest.approx(gmacs, abs=0.0015)
    assert cost.scan_flops > 0
    if scan_gflops is not None:
        assert cost.scan_flops / 1e9 == pytest.approx(scan_gflops)
