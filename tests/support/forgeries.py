"""Ways to falsify a run folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from harness.check import check
from harness.review.evidence import Evidence
from jobs.experiment.run_folder import RunFolder

Falsify = Callable[[Path], object]


def broken(run: Path, **options: Any) -> set[int]:
    """The rules that a folder breaks."""
    return {finding.rule for finding in check(Evidence(runs=[RunFolder(run)]), **options) if finding.weight == "fault"}


def cells(run: Path, method: str) -> list[Path]:
    """The cells of a method, by seed."""
    paths = sorted(run.glob("cells/*/record.json"), key=lambda path: int(json.loads(path.read_bytes())["seed"]))
    return [path.parent for path in paths if json.loads(path.read_bytes())["spec"]["pruning"]["method"] == method]


def edit(cell: Path, **changes: Any) -> None:
    """Changes fields of a record: `metrics__top1=3` is that of metrics."""
    path = cell / "record.json"
    record = json.loads(path.read_bytes())
    for name, value in changes.items():
        *parts, last = name.split("__")
        target = record
        for part in parts:
            target = target[part]
        target[last] = value(target[last]) if callable(value) else value
    path.write_text(json.dumps(record))


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Changes tensors of a safetensors file; it is a link to that of the stage, which stays."""
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path)


def forget(run: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Removes cells from the plan and from the folder, as if they had never been planned."""
    plan = json.loads((run / "plan.json").read_bytes())
    for cell, spec in list(plan["cells"].items()):
        if wanted(spec):
            del plan["cells"][cell]
            shutil.rmtree(run / "cells" / cell)
    (run / "plan.json").write_text(json.dumps(plan))
