"""Weights as they are, from the grid to the leaderboard: loaded, pruned in one shot, evaluated, profiled, recorded. No step is made."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from harness.launch import main
from harness.reproduce import main as reproduce
from jobs.experiment.records import Record, read_record
from models.registry import create_model

pytestmark = pytest.mark.slow
GRID = """
name: as_it_is
data: {source: synthetic, samples: 64, img_size: 16, loader: torch}
recipe: {epochs: 0, finetune_epochs: 0, batch_size: 16}
models:
  - {name: vim_micro, dim: 16, depth: 2, pretrained: given.pth}
  - {name: vim_micro, dim: 16, depth: 2, pretrained: larger.pth, label: larger}
exclude:
  - {model: {label: larger}, pruning: [random, semi_structured, wanda, sparsegpt, gradient, structured, magnitude]}
pruning:
  - dense
  - {method: magnitude, sparsity: 0.5}
  - {method: random, sparsity: 0.5}
  - semi_structured
  - {method: wanda, sparsity: 0.5, groups: [in_proj, out_proj]}
  - {method: sparsegpt, pattern: 2:4, batches: 2}
  - {method: gradient, sparsity: 0.5}
  - {method: gradient, criterion: gradient, sparsity: 0.5, batches: 3}
  - {method: structured, ratio: 0.5}
  - {method: structured, ratio: 0.5, criterion: taylor, batches: 2}
seeds: [0]
cluster: {kind: debug, profile_s: 0.001, profile_batch: 2, cache: CACHE}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of finished runs, with the checkpoint and the grid beside it."""
    folder = tmp_path_factory.mktemp("as_it_is")
    torch.manual_seed(5)
    torch.save({"model": create_model("vim_micro", 10, 16, dim=16, depth=2).state_dict()}, folder / "given.pth")
    torch.save(create_model("vim_micro", 4, 32, dim=16, depth=2).state_dict(), folder / "larger.pth")
    (folder / "grid.yaml").write_text(GRID.replace("CACHE", str(folder / "cache")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["grid.yaml"]) == 0
    return folder / "runs"


def records(runs: Path) -> dict[str, Record]:
    """Records by the pruning's label, of the first model; `larger` of the second."""
    found = [read_record(path) for path in runs.glob("as_it_is/cells/*/record.json")]
    return {record.model if record.model == "larger" else record.pruning: record for record in found}


def weights(runs: Path, record: Record) -> dict[str, torch.Tensor]:
    """What the cell saved."""
    return load_file(runs / "as_it_is" / "cells" / record.id / "model.safetensors")


def test_every_method_that_needs_no_step_has_a_record(runs: Path) -> None:
    found = records(runs)
    assert len(found) == 11 and {record.status for record in found.values()} == {"done"}
    for label, record in found.items():
        metrics = record.metrics
        assert metrics is not None and (metrics.epochs, metrics.train_loss, metrics.train_img_per_s) == (0, None, 0.0), label
        assert metrics.latency_ms > 0 and metrics.test_samples == 16
    assert (runs / "as_it_is" / "leaderboard.csv").exists()


def test_the_dense_cell_is_the_file(runs: Path) -> None:
    given = torch.load(runs.parent / "given.pth", weights_only=True)["model"]
    saved = weights(runs, records(runs)["dense"])
    assert given.keys() == saved.keys() and all(torch.equal(given[name], saved[name]) for name in given)


def test_masks_drop_weights_of_the_file_and_change_no_other(runs: Path) -> None:
    given = torch.load(runs.parent / "given.pth", weights_only=True)["model"]
    for label, record in records(runs).items():
        if label.startswith(("structured", "sparsegpt")) or label in ("dense", "larger"):
            continue
        saved = weights(runs, record)
        assert all(torch.equal(saved[name], given[name] * (saved[name] != 0)) for name in given), label
        whole = label in ("magnitude(0.5)", "random(0.5)", "gradient(0.5)")  # the others leave layers out
        assert record.metrics is not None and record.metrics.sparsity_prunable == pytest.approx(0.5 if whole else 0.3, abs=0.001 if whole else 0.2)


def test_sparsegpt_keeps_two_of_four_and_updates_them(runs: Path) -> None:
    given = torch.load(runs.parent / "given.pth", weights_only=True)["model"]
    saved = weights(runs, records(runs)["sparsegpt(pattern=2:4, batches=2)"])
    matrices = [name for name, tensor in given.items() if "proj" in name and tensor.ndim == 2 and tensor.shape[1] % 4 == 0]
    assert len(matrices) == 8
    for name in given:
        lives = saved[name] != 0
        if name in (*matrices, "head.weight"):
            assert (lives.reshape(-1, 4).sum(1) == 2).all() and not torch.equal(saved[name], given[name] * lives), name
        else:
            assert torch.equal(saved[name], given[name]), name


def test_units_are_removed_and_what_is_left_is_the_files(runs: Path) -> None:
    given = torch.load(runs.parent / "given.pth", weights_only=True)["model"]
    for label in ("structured(ratio=0.5)", "structured(ratio=0.5, criterion=taylor, batches=2)"):
        record = records(runs)[label]
        assert record.metrics is not None and record.metrics.params < 0.8 * record.metrics.params_dense  # type: ignore[operator]
        for name, left in weights(runs, record).items():
            assert set(left.flatten().tolist()) <= set(given[name].flatten().tolist())


def test_what_was_not_loaded_as_it_is_stands_in_the_record(runs: Path) -> None:
    found = records(runs)
    assert found["larger"].metrics is not None and found["dense"].metrics is not None
    head, positions = [note for note in found["larger"].metrics.notes if "head" in note or "position" in note]
    assert head == "the head is fresh, because the file's has 4 classes and the data 10"
    assert positions == "position embeddings were resampled from 8 x 8 to 4 x 4 patches, bicubic"
    assert not [note for note in found["dense"].metrics.notes if "head" in note or "position" in note]


def test_a_cell_without_a_step_is_reproduced_to_the_bit(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce([records(runs)["gradient(0.5)"].id, "--runs", str(runs)]) == 0
    assert "equal to the bit" in capsys.readouterr().out
