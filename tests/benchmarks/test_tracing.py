"""What a step launches, counted on meta tensors: the counter itself, and ceilings for what was once higher."""

from functools import cache

import pytest
import torch

from benchmarks.tracing import Trace, main
from benchmarks.tracing import traced as trace_of

traced = cache(trace_of)


def test_views_are_free_copies_into_another_layout_are_told_and_bytes_count_once() -> None:
    x = torch.empty(4, 8, device="meta")
    with Trace() as trace:
        (x.t() + 1.0).sum()  # reads 32 numbers and writes them; reads them and writes one
        x.t().contiguous()
        x.clone()
        torch.empty(8, 4, device="meta").copy_(x.t())
    assert trace.operations == {"add": 1, "sum": 1, "clone": 2, "copy_": 1}
    assert trace.bytes == 4 * (32 + 32 + 32 + 1 + 4 * 32 + 2 * 32)
    assert trace.transposing == 2
    with Trace() as expanded:
        x[:1].expand(100, 8) * 1.0
    assert expanded.bytes == 4 * (8 + 800)


@pytest.mark.parametrize(
    ("name", "way", "operations", "transposing"),
    [
        ("vim_tiny", "triton", 1_930, 50),  # 48 of them of A's gradients, (384, 16)
        ("vim_tiny", "cuda", 2_410, 150),
        ("mambavision_t", "triton", 930, 75),
        ("vmamba_tiny_s1l8", "triton", 1_180, 92),
    ],
)
def test_a_training_step_launches_no_more_than_it_did(name: str, way: str, operations: int, transposing: int) -> None:
    trace = traced(name, way=way, batch=2)
    assert trace.total <= operations and trace.transposing <= transposing, (trace.total, trace.transposing)
    assert trace.operations["select_backward"] <= 2  # each fills a tensor of zeros


def test_the_official_composition_of_vim_copies_and_flips_what_ours_reads_as_it_lies() -> None:
    ours, official = (traced("vim_tiny", way=way, batch=2) for way in ("triton", "official"))
    assert official.operations["flip"] == 96 and ours.operations["flip"] == 0
    assert official.transposing > 5 * ours.transposing and official.total > 1.2 * ours.total


def test_the_table_has_a_row_for_each_network_dtype_work_and_way(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--models", "vssd_micro", "--batch", "1"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| vssd")]
    assert len(rows) == 3 and rows[2].startswith("| vssd_micro | fp32 | inference | Triton | ")
