"""Folders of finished cells with networks that nobody trained: the product's own files around made-up numbers."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from jobs.data.prepare import Dataset
from jobs.experiment.cell import Cell
from jobs.experiment.files import sha256_of, write_json
from jobs.experiment.records import Record
from jobs.experiment.specs import image_size
from jobs.train.exports import StageResult, write_export
from jobs.worker.cell import describe_cell
from models.pruning.structure import Structure, restructure
from models.registry import create_model
from tests.support.records import fake_environment, fake_metrics

RESULT = StageResult(val_top1=90.0, val_loss=0.3, train_loss=0.2, steps=10, epochs=1, train_s=1.0, train_img_per_s=1.0, sparsity=0.0)


def record_of(cell: Cell, weights_sha256: str | None = None, **metrics: Any) -> Record:
    """The record of a cell with made-up numbers."""
    return Record(
        id=cell.id, grid="made up", model=cell.model.label, pruning=cell.pruning, seed=cell.seed, spec=dict(cell.to_json()), stages=[], status="done",
        metrics=fake_metrics(90.0, **metrics), environment=fake_environment(), weights_sha256=weights_sha256, started="", finished="",
    )  # fmt: skip


def data_of(cell: Cell, classes: int, names: tuple[str, ...] | None = None) -> Dataset:
    """What a job knows of its data."""
    file = Path("test.beton")
    sizes = {"train_samples": 8, "val_samples": 2, "test_samples": 360}
    return Dataset(classes=classes, img_size=image_size(cell.data), train=file, test=file, sha256="d" * 64, names=names, **sizes)


def write_cell(
    folder: Path,
    cell: Cell,
    *,
    classes: int = 10,
    names: tuple[str, ...] | None = None,
    structure: Structure | None = None,
    masks: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Writes the folder of a finished cell; the network in it, in evaluation mode."""
    network = create_model(cell.model.name, classes, image_size(cell.data), scan_backend="reference", **cell.model.architecture)
    for name, mask in (masks or {}).items():
        network.get_parameter(name).data *= mask
    if structure is not None:
        restructure(network, structure, image_size(cell.data))
    write_export(folder.parent / "stage", network.state_dict(), masks or {}, RESULT, structure)
    shutil.move(folder.parent / "stage" / "export", folder)
    record = record_of(cell, sha256_of(folder / "model.safetensors"))
    describe_cell(folder, cell, record, data_of(cell, classes, names))
    write_json(folder / "record.json", record.model_dump(mode="json"))
    return network.eval()
