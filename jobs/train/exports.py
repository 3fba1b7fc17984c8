"""The export of a stage: whole fp32 weights, masks, weights to rewind to, and its result. The folder appears when all of it is on disk.

export/model.safetensors  masks.safetensors (absent when dense)  structure.json (absent when nothing was removed)
rewind-000000100.safetensors (where a later stage rewinds)  result.json
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from jobs.experiment.files import write_json, written_aside
from jobs.experiment.rewinds import kept_steps, refusal, rewind_name
from jobs.experiment.run_folder import EXPORT, MASKS, RESULT, STRUCTURE, UNFINISHED_EXPORT, WEIGHTS
from jobs.train.removal import load_structure
from models.pruning.structure import Structure
from models.pruning.structure_json import structure_to_json


class ExportError(RuntimeError):
    """A stage lacks the export that another stage starts from."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """The numbers of a finished stage."""

    val_top1: float  # percent, of the exported weights
    val_top1_pruned: float | None = (
        None  # percent, after the method pruned trained weights and before the first step; None: it pruned later, or never
    )
    val_loss: float
    train_loss: float  # mean over the last epoch; without an epoch that of the parent; NaN if no stage had one
    steps: int  # optimizer steps made, over all restarts; repeated steps count once
    epochs: int
    train_s: float  # wall-clock, evaluation and checkpoints included, over all restarts
    train_img_per_s: float  # during steps; 0 without a step
    sparsity: float  # fraction of zeros in the masked parameters
    peak_memory_bytes: int | None = None  # of rank 0, training and validation; see `jobs.parallel.memory`
    joules: float | None = None  # of all ranks' devices, over all restarts; None if the machine does not measure it
    notes: list[str] = field(default_factory=list)  # of a pretrained file: what was not loaded as it stands there
    ranks: int | None = None  # that trained it; None: a version before, which did not say
    threads: int | None = None  # of each rank


@dataclass(frozen=True, kw_only=True)
class Export:
    """The files of a finished stage; None for a file that it does not have."""

    weights: Path
    masks: Path | None
    structure: Structure | None  # the units removed from the network
    rewinds: dict[int, Path]  # by step


def exported(folder: Path) -> Export:
    """The export of the stage in `folder`. Raises ExportError if the stage is not finished."""
    export = folder / EXPORT
    if not export.is_dir():
        raise ExportError(f"{folder} has no export, because that stage is not finished: run it first")
    masks = export / MASKS
    return Export(
        weights=export / WEIGHTS,
        masks=masks if masks.exists() else None,
        structure=load_structure(export),
        rewinds=kept_steps(export),
    )


def read_result(folder: Path) -> StageResult | None:
    """The result of the stage in `folder`; None if it is not finished."""
    path = folder / EXPORT / RESULT
    return StageResult(**json.loads(path.read_bytes())) if path.exists() else None


def write_rewind(folder: Path, weights: Mapping[str, Tensor], step: int) -> None:
    """Keeps the weights after optimizer step `step` until the stage is exported."""
    _save(weights, folder / rewind_name(step))


def rewind_file(folder: Path | None, step: int | None) -> Path:
    """The weights that the stage in `folder` kept at a step. Raises ExportError, which says why there are none."""
    kept = exported(folder).rewinds if folder else {}
    if folder is None or step is None or step not in kept:
        why = f"it kept the steps {list(kept)}" if kept else "it kept none"
        if folder and step is not None:
            refused, result = refusal(folder / EXPORT, step), read_result(folder)
            if refused.exists():
                why = f"{refused} says: {refused.read_bytes().decode(errors='replace').strip()}"
            elif result is not None and step > result.steps:
                why = f"it made {result.steps} steps; choose a rewind_step up to that"
        raise ExportError(f"{folder} has no weights of step {step} to rewind to: {why}")
    return kept[step]


def write_export(
    folder: Path, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], result: StageResult, structure: Structure | None = None
) -> None:
    """Publishes a finished stage, whole or not at all. Raises OSError, or safetensors' error, which names the file that could not be written."""
    aside = folder / UNFINISHED_EXPORT
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    _save(weights, aside / WEIGHTS)
    if masks:
        _save(masks, aside / MASKS)
    if structure is not None:
        write_json(aside / STRUCTURE, structure_to_json(structure))
    rewinds = kept_steps(folder).values()
    for rewind in rewinds:
        shutil.copyfile(rewind, aside / rewind.name)
    write_json(aside / RESULT, asdict(result))
    aside.rename(folder / EXPORT)
    for rewind in rewinds:
        rewind.unlink()


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    whole = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    with written_aside(path) as aside:
        save_file(whole, aside, metadata={"format": "pt"})
