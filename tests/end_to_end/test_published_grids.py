"""slurm/grids/published.yaml and imagenet.yaml, from plan to record, on a folder of ImageNet's shape and files in the official formats.

The plan has every row at its full size. The rows that run on a CPU in a test are the smallest of each family: Vim-Ti and MambaVision-T.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from analysis.csv_files import read_csv
from harness.grid.read import read_grid
from harness.launch import main
from jobs.experiment.records import Record, read_record
from models.published import NO_LICENCE, PUBLISHED
from models.registry import create_model
from tests.support.official import CLASSES, hollow, write_imagenet, write_official

pytestmark = pytest.mark.slow
GRIDS = Path(__file__).parents[2] / "slurm" / "grids"
HERE = {"kind": "debug", "profile_s": 0.001, "profile_batch": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/imagenet, and weights/ with a file for every model of published.yaml: real ones for the two that run."""
    folder = tmp_path_factory.mktemp("published")
    write_imagenet(folder / "data" / "imagenet", spare=3)
    (folder / "weights").mkdir()
    for entry in yaml.safe_load((GRIDS / "published.yaml").read_text())["models"]:
        torch.manual_seed(1)
        runs = entry["name"] in ("vim_tiny", "mambavision_t")
        weights = create_model(entry["name"], CLASSES).state_dict() if runs else hollow(entry["name"])
        write_official(folder / entry["pretrained"], entry["name"], weights)
    return folder


def written(folder: Path, grid: str, name: str, **changes: Any) -> Path:
    """The grid under another name in the folder, with parts of it changed."""
    content = yaml.safe_load((GRIDS / grid).read_text())
    for part, change in changes.items():
        content[part] = content[part] | change if isinstance(change, dict) and isinstance(content[part], dict) and part != "cluster" else change
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content | {"name": name}))
    return path


def entries(grid: str, *names: str) -> list[dict[str, Any]]:
    return [entry for entry in yaml.safe_load((GRIDS / grid).read_text())["models"] if entry["name"] in names]


def records(folder: Path, name: str) -> list[Record]:
    return [read_record(path) for path in sorted(folder.glob(f"runs/{name}/cells/*/record.json"))]


def test_the_whole_grid_is_planned_and_every_file_fits_its_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    path = written(folder, "published.yaml", "whole", data={"val_fraction": 0.002}, cluster={"kind": "local"})
    assert main([str(path), "--dry-run"]) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert re.search(r"\b17 cells\b", out) or "17 of 17 cells" in out, out
    assert "interpolation bicubic for Vim-Ti, Vim-Ti+, Vim-S, Vim-S+, Vim-B, VMamba-T-s1l8, " in err
    assert "eval_crop 0.93, interpolation bicubic for MambaVision-S, as published" in err


def test_every_model_with_published_figures_and_a_licence_is_in_the_grid() -> None:
    licensed = [name for name, row in PUBLISHED.items() if row.licence != NO_LICENCE]
    assert [entry["name"] for entry in yaml.safe_load((GRIDS / "published.yaml").read_text())["models"]] == licensed


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> list[Record]:
    """The records of the two models that run."""
    changes: dict[str, Any] = {"data": {"val_fraction": 0.002}, "recipe": {"batch_size": 2}, "cluster": HERE | {"cache": str(folder / "cache")}}
    path = written(folder, "published.yaml", "evaluated", models=entries("published.yaml", "vim_tiny", "mambavision_t"), **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([path.name]) == 0
    return records(folder, "evaluated")


def test_published_measured_and_difference_stand_in_record_and_leaderboard(folder: Path, evaluated: list[Record]) -> None:
    rows = {row["model"]: row for row in read_csv(folder / "runs" / "evaluated" / "leaderboard.csv")}
    assert {record.model for record in evaluated} == set(rows) == {"Vim-Ti", "MambaVision-T"}
    for record in evaluated:
        published, row = PUBLISHED[record.spec["model"]["name"]], rows[record.model]
        assert record.metrics is not None and record.metrics.test_samples == 4
        assert (record.metrics.published_top1, record.metrics.published_top5) == (published.top1, published.top5)
        assert record.metrics.published_source == published.source
        assert "published on 50000 images, measured here on 4" in record.metrics.notes
        assert (record.spec["data"]["eval_crop"], record.spec["data"]["interpolation"]) == (published.eval_crop, "bicubic")
        assert float(row["published_top1"]) == published.top1
        assert float(row["top1_vs_published"]) == pytest.approx(float(row["top1"]) - published.top1)
    assert len({row["key"] for row in rows.values()}) == 1, "their evaluations differ, and both are the published ones"
    assert "vs published" in (folder / "runs" / "evaluated" / "report.html").read_text()


def test_the_weights_are_the_files_to_the_bit(folder: Path, evaluated: list[Record]) -> None:
    for record in evaluated:
        torch.manual_seed(1)
        given = create_model(record.spec["model"]["name"], CLASSES).state_dict()
        saved = load_file(folder / "runs" / "evaluated" / "cells" / record.id / "model.safetensors")
        assert given.keys() == saved.keys() and all(torch.equal(given[name], saved[name]) for name in given)


def test_every_official_checkpoint_is_fine_tuned_with_the_recipe_of_its_own_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    path = written(
        folder,
        "imagenet.yaml",
        "planned",
        data={"val_fraction": 0.002},
        recipe=smaller(batch_size=32, micro_batch_size=4),
        cluster={"tasks_per_node": 8},
    )
    cells = read_grid(path).cells
    pairs = {(cell.model.label, cell.recipe.optimizer, cell.recipe.weight_decay, cell.recipe.mesa, cell.recipe.drop_path) for cell in cells}
    assert pairs == {
        ("Vim-Ti", "adamw", 0.1, 0.0, 0.0),
        ("Vim-S", "adamw", 0.05, 0.0, 0.05),
        ("MambaVision-T", "lamb", 0.05, 0.5, None),
        ("MambaVision-S", "lamb", 0.05, 1.0, None),
    }
    assert len(cells) == 4 * 9 and {cell.data.eval_crop for cell in cells} == {0.875, 1.0, 0.93}
    assert main([str(path), "--dry-run"]) == 0, capsys.readouterr().err


@pytest.fixture(scope="module")
def tuned(folder: Path) -> list[Record]:
    """Four blocks of Vim-Ti, dense and pruned, after an epoch of its recipe on 20 classes and images of 32 pixels, 2 x 2 patches."""
    write_imagenet(folder / "data" / "few", classes=20, train=2)
    (entry,) = entries("imagenet.yaml", "vim_tiny")
    write_official(folder / "weights" / "shallow.pth", "vim_tiny", create_model("vim_tiny", CLASSES, depth=4).state_dict())
    pruning = [{"method": "magnitude", "sparsity": 0.5}]
    path = written(
        folder,
        "imagenet.yaml",
        "tuned",
        data={"path": "data/few", "name": "few", "img_size": 32, "val_fraction": 0.05},
        recipe=smaller("vim_tiny", batch_size=32, finetune_epochs=1),
        models=[entry | {"depth": 4, "pretrained": "weights/shallow.pth"}],
        pruning=["dense", *pruning],
        exclude=None,
        cluster=HERE | {"cache": str(folder / "cache")},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([path.name]) == 0
    return records(folder, "tuned")


def smaller(*presets: str, **changes: Any) -> list[dict[str, Any]]:
    """The recipes of imagenet.yaml, or those with these presets, with smaller batches."""
    recipes = yaml.safe_load((GRIDS / "imagenet.yaml").read_text())["recipe"]
    return [recipe | changes for recipe in recipes if not presets or recipe["preset"] in presets]


def test_a_pruned_checkpoint_is_fine_tuned_with_its_recipe_and_recorded(tuned: list[Record]) -> None:
    assert {record.pruning for record in tuned} == {"dense", "magnitude(0.5)"}
    for record in tuned:
        metrics, recipe = record.metrics, record.spec["recipe"]
        assert metrics is not None and record.status == "done" and metrics.epochs == 1 and metrics.train_loss is not None
        assert (recipe["auto_augment"], recipe["mixup"], recipe["cutmix"], recipe["repeated_augment"]) == ("rand-m9-mstd0.5-inc1", 0.8, 1.0, 3)
        assert "the head is fresh, because the file's has 1000 classes and the data 20" in metrics.notes
        assert "position embeddings were resampled from 14 x 14 to 2 x 2 patches, bicubic" in metrics.notes
        assert metrics.published_top1 is None and not [note for note in metrics.notes if "published" in note]
        assert metrics.sparsity_prunable == pytest.approx(0.5 if record.pruning != "dense" else 0.0, abs=1e-3)
