"""Cells whose network became smaller, from the grid to the record and again."""

import json
from pathlib import Path

import pytest

from harness.launch import main
from harness.reproduce import main as reproduce
from jobs.experiment.records import Record, read_record

GRID = """
name: smaller
data: {source: synthetic, samples: 32, loader: torch}
recipe: {epochs: 2, finetune_epochs: 1, batch_size: 16, warmup_epochs: 0}
models: [{name: mambavision_micro, dim: 8, in_dim: 8, depths: [[1, 1, 2, 2]], convnext: true, attention_pool: true}]
pruning: [dense, {method: structured, ratio: 0.5}, {method: early_bird, ratio: 0.5, fifo: 2}]
seeds: [0]
cluster: {kind: debug, profile_s: 0.001, profile_batch: 2, cache: CACHE}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of finished runs."""
    folder = tmp_path_factory.mktemp("smaller")
    (folder / "grid.yaml").write_text(GRID.replace("CACHE", str(folder / "cache")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["grid.yaml"]) == 0
    return folder / "runs"


def records(runs: Path) -> dict[str, Record]:
    """Records by method."""
    found = [read_record(path) for path in runs.glob("smaller/cells/*/record.json")]
    return {str(record.spec["pruning"]["method"]): record for record in found}


@pytest.mark.slow
def test_parameters_file_multiply_adds_and_latency_of_the_smaller_network_are_recorded(runs: Path) -> None:
    dense, *smaller = (records(runs)[name].metrics for name in ("dense", "structured", "early_bird"))
    assert dense is not None and not dense.structure
    for metrics in smaller:
        assert metrics is not None and metrics.params_dense == dense.params and metrics.macs == dense.macs
        assert metrics.params == metrics.params_nonzero < 0.7 * dense.params
        assert metrics.file_bytes < 0.8 * dense.file_bytes
        assert metrics.macs_structural == metrics.macs_nonzero < 0.8 * dense.macs
        assert metrics.sparsity_all == pytest.approx(1 - metrics.params / dense.params)
        assert metrics.latency_ms > 0 and metrics.dense_latency_ms and metrics.speedup_latency
        assert metrics.epochs == dense.epochs == 3


@pytest.mark.slow
def test_the_record_says_what_was_removed_and_the_file_beside_it_which(runs: Path) -> None:
    found = records(runs)
    for name in ("structured", "early_bird"):
        metrics = found[name].metrics
        assert metrics is not None
        structure = json.loads((runs / "smaller" / "cells" / found[name].id / "structure.json").read_text())
        assert structure["kept"] and all(len(units) == metrics.structure[group][0] for group, units in structure["kept"].items())
        assert sum(kept for kept, _ in metrics.structure.values()) < 0.6 * sum(before for _, before in metrics.structure.values())
        assert metrics.structure["pool.heads"][1] == 4
    notes = found["early_bird"].metrics.notes  # type: ignore[union-attr]
    assert any("ticket" in note for note in notes) and any("criterion" in note for note in notes)


@pytest.mark.slow
def test_a_smaller_network_is_reproduced_to_the_bit(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce([records(runs)["early_bird"].id, "--runs", str(runs)]) == 0
    assert "equal to the bit" in capsys.readouterr().out
